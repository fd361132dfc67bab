"""Geometry of charts."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.serve.pages.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw, figure, nice_numbers
from octavo.serve.runs.curves import Chart, Curve

VALUES = st.floats(min_value=-1e300, max_value=1e300)
POINTS = st.lists(st.tuples(st.integers(0, 2**53 - 1).map(float), VALUES), min_size=1, max_size=5)


def chart(*points: tuple[float, float], scale="free") -> Chart:
    return Chart("loss", scale, (Curve("loss", points, points[-1][1]),))


def test_the_first_and_last_step_stand_at_the_edges():
    drawn = draw(chart((1, 0.0), (11, 1.0), scale="share"))
    assert drawn.lines[0].points == f"{LEFT},{HEIGHT - BOTTOM} {WIDTH - RIGHT},{TOP}"
    assert [tick.text for tick in drawn.y_ticks] == ["0%", "25%", "50%", "75%", "100%"]
    assert drawn.y_ticks[0].at == HEIGHT - BOTTOM
    assert [tick.text for tick in drawn.x_ticks] == ["2", "4", "6", "8", "10"]
    assert drawn.lines[0].latest == "100%"


def test_a_single_point_is_a_dot():
    drawn = draw(chart((5, 2.0)))
    assert drawn.lines[0].single == (LEFT, (TOP + HEIGHT - BOTTOM) / 2)
    assert [tick.text for tick in drawn.x_ticks] == ["5", "6"]


def test_what_counts_from_zero_shows_zero():
    assert draw(chart((1, 90.0), (2, 100.0), scale="from_zero")).y == (0.0, 105.0)
    assert draw(chart((1, 90.0), (2, 100.0))).y == (89.5, 100.5)
    assert draw(chart((1, -1.0), (2, 1.0), scale="from_zero")).y[0] < -1  # a wrong value is shown as it is
    assert draw(chart((1, 0.5), (2, 1.5), scale="share")).y[1] > 1.5


@settings(max_examples=50)
@given(POINTS, st.sampled_from(["free", "from_zero", "share"]))
def test_every_curve_stays_inside_its_frame(points, scale):
    drawn = draw(chart(*sorted(points), scale=scale))
    for pair in drawn.lines[0].points.split():
        x, y = map(float, pair.split(","))
        assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    for tick in drawn.y_ticks:
        assert TOP - 0.1 <= tick.at <= HEIGHT - BOTTOM + 0.1
    assert len(drawn.x_ticks) <= 7
    assert len(drawn.y_ticks) <= 7


def test_numbers_are_short():
    numbers = {0.0: "0", 0.22321: "0.223", 1e-5: "1e-05", 12345.0: "12.3k", 5e6: "5M", 2.5e9: "2.5G", -1500.0: "-1.5k"}
    assert {number: figure(number) for number in numbers} == numbers
    assert figure(1e15) == "1.00e+15"
    assert figure(0.8333, "share") == "83.3%"


def test_nice_numbers():
    assert nice_numbers(0, 1) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert nice_numbers(1, 120, whole=True) == [50.0, 100.0]
    assert all(math.isfinite(number) for number in nice_numbers(-1e300, 1e300))
