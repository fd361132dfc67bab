"""Line charts as geometry: where lines, ticks and labels stand; `templates/chart.html` draws them."""

import math
from dataclasses import dataclass

from octavo.serve.runs.curves import Chart, Scale

WIDTH, HEIGHT = 400, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24
"""Margins: numbers stand to the left and below."""
_TICKS = 4
_STEPS = (1, 2, 2.5, 5, 10)
_NOTHING = 1e-200


@dataclass(frozen=True)
class Tick:
    """A number on an axis, and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: `points` as SVG wants them; `single` where there is but one, of which no line can be drawn."""

    metric: str
    latest: str
    points: str
    single: tuple[float, float] | None


@dataclass(frozen=True)
class Drawing:
    """A chart with the size WIDTH x HEIGHT. `x` and `y` are the ranges that its inner edges stand for."""

    key: str
    scale: Scale
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x: tuple[float, float]
    y: tuple[float, float]


def draw(chart: Chart) -> Drawing:
    """Geometry of a chart. It must have a curve, and each curve a point."""
    steps = [step for curve in chart.curves for step, _ in curve.points]
    values = [value for curve in chart.curves for _, value in curve.points]
    x = (min(steps), max(max(steps), min(steps) + 1))
    y = _range(min(values), max(values), chart.scale)

    def across(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - x[0]) / (x[1] - x[0]), 1)

    def down(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y[0]) / (y[1] - y[0]), 1)

    lines = []
    for curve in chart.curves:
        places = [(across(step), down(value)) for step, value in curve.points]
        lines.append(
            Line(
                curve.metric,
                figure(curve.latest, chart.scale),
                " ".join(f"{left:g},{top:g}" for left, top in places),
                places[0] if len(places) == 1 else None,
            )
        )
    return Drawing(
        key=chart.key,
        scale=chart.scale,
        lines=tuple(lines),
        x_ticks=tuple(Tick(across(step), figure(step)) for step in nice_numbers(*x, whole=True)),
        y_ticks=tuple(Tick(down(value), figure(value, chart.scale)) for value in nice_numbers(*y)),
        x=x,
        y=y,
    )


def figure(value: float, scale: Scale = "free") -> str:
    """`0.223`, `12.4k`, `1e-05`, `83%`: three digits, as short as they can be."""
    if scale == "share":
        return f"{100 * value:.3g}%"
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.3g}{letter}" if size < 1e12 else f"{value:.2e}"
    return f"{value:.3g}"


def nice_numbers(low: float, high: float, whole: bool = False) -> list[float]:
    """About four round numbers inside the range, from the first to the last."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _range(low: float, high: float, scale: Scale) -> tuple[float, float]:
    """What the inner edges stand for: the values with some air, from 0 or 0 to 1 where that says more."""
    if scale == "share" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if scale != "free" and low >= 0:
        low = 0.0
    spread = high - low
    if spread <= max(_NOTHING, 1e-9 * max(abs(high), abs(low))):  # all equal
        spread = abs(high) if abs(high) > _NOTHING else 1.0
        return (0.0, high + spread) if low >= 0 and scale != "free" else (low - spread, high + spread)
    return (low if low == 0 else low - spread / 20), high + spread / 20
