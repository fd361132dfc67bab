import io

import pytest
from rich.console import Console

from octavo.pull.meter import LiveMeter, PlainMeter, SilentMeter, open_meter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_lines_now_and_then():
    stream = io.StringIO()
    meter = PlainMeter(stream, every_seconds=0.0)
    meter.note("from there")
    meter.show("a.gguf (1/1)", 98_000_000, 2_000_000_000)
    assert stream.getvalue() == "from there\n  98 MB of 2.00 GB  a.gguf (1/1)\n"
    quiet = PlainMeter(stream := io.StringIO(), every_seconds=1000.0)
    for done in range(100):
        quiet.show("a.gguf", done, 100)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away():
    stream = Terminal()
    meter = LiveMeter(Console(file=stream, force_terminal=True, width=100, color_system=None))
    meter.show("a.gguf (1/2)", 0, 200_000_000)
    meter.show("b.gguf [2/2]", 98_000_000, 200_000_000)
    assert meter._progress is not None
    meter._progress.refresh()
    assert "b.gguf [2/2]" in stream.getvalue()
    assert "98.0/200.0 MB" in stream.getvalue()
    meter.note("done")
    assert meter._progress is None
    assert stream.getvalue().rstrip().endswith("done")
    meter.close()


@pytest.mark.parametrize(
    ("stream", "as_json", "kind"),
    [(io.StringIO(), False, PlainMeter), (Terminal(), False, LiveMeter), (Terminal(), True, SilentMeter)],
)
def test_the_meter_suits_the_stream(stream, as_json, kind):
    meter = open_meter(as_json, stream)
    assert type(meter) is kind
    if as_json:
        meter.note("x")
        meter.show("x", 1, 2)
        assert stream.getvalue() == ""
