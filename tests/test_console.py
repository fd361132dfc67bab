import io
import json

import pytest
from rich.console import Console

from octavo.console import (
    JsonDisplay,
    LiveDisplay,
    PlainDisplay,
    Progress,
    count,
    duration,
    open_display,
    progress_text,
)
from octavo.rundir import SummaryRow

PROGRESS = Progress("base", 30, 100, {"loss": 2.3141, "accuracy": 0.5}, 1204.4, 130.0, 812_000_000)
ROWS = [
    SummaryRow(stage="guess", pass_at_1=0.021, low=0.01, high=0.04),
    SummaryRow(
        stage="base",
        pass_at_1=0.5,
        low=0.45,
        high=0.55,
        maj_at_8=0.6,
        mean_completion_tokens=81.2,
        finished_share=0.97,
        tokens=1_500_000,
        flops=2.5e13,
        seconds=185.0,
    ),
]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4s"), (9.9, "9.9s"), (42.4, "42s"), (59.9, "1m 00s"), (185, "3m 05s"), (7620, "2h 07m")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_progress_text_shows_all_that_is_known():
    assert progress_text(PROGRESS) == "step 30/100  loss 2.31  accuracy 0.5  1,204 tokens/s  0.81 GB  2m 10s left"
    unknown = Progress("sample", 3, None, {}, 0.0, None, 1_000_000_000)
    assert progress_text(unknown) == "step 3  1.00 GB"


def test_plain_display_is_lines_without_control_codes():
    stream = io.StringIO()
    display = PlainDisplay(stream, every_seconds=0)
    display.stage_started("base", "pretrain", 2, 5)
    display.progress(PROGRESS)
    display.stage_finished("base", 185)
    display.closing(ROWS, {"base": 185.0, "eval-base": 12.0}, 200.0)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.startswith("[2/5] base (pretrain)\n  step 30/100  loss 2.31")
    assert "All stages 3m 17s; this command 3m 20s." in text
    for shown in ("45.0 to 55.0%", "1.5M", "2.5e+13", "97.0%"):
        assert shown in text


def test_plain_display_holds_back_between_lines():
    stream = io.StringIO()
    display = PlainDisplay(stream, every_seconds=3600)
    display.stage_started("base", "pretrain", 1, 1)
    for _ in range(5):
        display.progress(PROGRESS)
    assert stream.getvalue() == "[1/1] base (pretrain)\n"


def test_json_display_is_one_object_a_line():
    stream = io.StringIO()
    display = JsonDisplay(stream)
    display.note("a\nb")
    display.stage_started("base", "pretrain", 2, 5)
    display.progress(PROGRESS)
    display.stage_finished("base", 1.5)
    display.closing(ROWS, {"base": 185.0}, 200.0)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["note", "stage_started", "progress", "stage_finished", "finished"]
    assert events[2]["figures"] == {"loss": 2.3141, "accuracy": 0.5}
    assert events[4]["rows"][1]["maj_at_8"] == 0.6
    assert events[4]["seconds"] == 185.0


def test_the_stream_chooses_the_display():
    assert isinstance(open_display(stream=io.StringIO()), PlainDisplay)
    assert isinstance(open_display(as_json=True, stream=io.StringIO()), JsonDisplay)


def test_the_live_display_leaves_what_is_finished():
    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=80, color_system=None))
    display.stage_started("base", "pretrain", 2, 5)
    display.progress(PROGRESS)
    display.note("take [care]")
    display.stage_finished("base", 185)
    display.closing(ROWS, {"base": 185.0}, 200.0)
    display.close()
    text = stream.getvalue()
    assert "[2/5] base  finished in 3m 05s" in text
    assert "take [care]" in text
    assert "All stages 3m 05s; this command 3m 20s." in text


def test_the_closing_table_fits_into_80_columns():
    stream = io.StringIO()
    full = ROWS[1].model_copy(
        update={"stage": "cold-start", "pass_at_1": 1.0, "low": 0.999, "high": 1.0, "maj_at_8": 1.0}
    )
    PlainDisplay(stream).closing([full], {"base": 7620.0}, 7700.0)
    assert max(map(len, stream.getvalue().splitlines())) <= 80


@pytest.mark.parametrize(
    ("number", "text"), [(950, "950"), (20_480, "20k"), (3_400_000, "3.4M"), (1_200_000_000, "1.2G")]
)
def test_count(number, text):
    assert count(number) == text
