"""What a stage's metrics.jsonl says over time: curves, thinned to what a screen can show."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo import rundir
from octavo.serve.runs.files import Row, curve_rows
from octavo.serve.runs.view import numbers

POINTS = 200
"""Most points of a curve: means over equal parts of what was read."""

Scale = Literal["free", "from_zero", "share"]
_LAYER = re.compile(rf"{rundir.EXPERT_LOAD_MAX}_(\d+)")
_MOST_LAYERS = 64
_MOST = 1e300
"""Values that are larger are no measurements, and their sums are no numbers."""


@dataclass(frozen=True)
class Curve:
    """One metric. The points are (step, value), in the order of steps."""

    metric: str
    points: tuple[tuple[float, float], ...]
    latest: float
    """The last value as it was written, not a mean."""


@dataclass(frozen=True)
class Chart:
    """Curves that are read together."""

    key: str
    scale: Scale
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Curves:
    """All charts of a stage that has anything to show in them."""

    charts: tuple[Chart, ...]
    whole: bool
    """Whether every row was read, or pieces from all over a large file."""
    damaged: int


CHARTS: tuple[tuple[str, Scale, tuple[str, ...]], ...] = (
    ("loss", "free", (rundir.LOSS, rundir.MTP_LOSS, "cross_entropy", "forward_kl", "reverse_kl")),
    ("accuracy", "share", (rundir.VALIDATION_ACCURACY, rundir.CORRECT)),
    ("reward", "free", (rundir.REWARD, "reward_accuracy", "reward_format", "reward_language", "reward_overlong")),
    ("length", "from_zero", (rundir.COMPLETION_TOKENS, "completion_tokens_max")),
    ("entropy", "from_zero", (rundir.ENTROPY,)),
    ("groups", "share", (rundir.TIED_GROUPS, rundir.FINISHED_SHARE, rundir.CLIP_SHARE, "masked")),
    ("experts", "from_zero", ()),
    ("throughput", "from_zero", (rundir.TOKENS_PER_SECOND,)),
    ("gradient", "from_zero", (rundir.GRADIENT_NORM,)),
    ("rate", "from_zero", (rundir.LEARNING_RATE,)),
)
"""Key, scale, metrics. Those of `experts` are the layers that the stage has."""


def read_curves(path: Path) -> Curves:
    """Charts of a metrics.jsonl. Raises DataError where it cannot be read."""
    read = curve_rows(path)
    points = _points(read.rows)
    charts = []
    for key, scale, metrics in CHARTS:
        names = metrics if key != "experts" else _layers(points) or (rundir.EXPERT_LOAD_MAX,)
        curves = tuple(Curve(name, thinned(points[name]), points[name][-1][1]) for name in names if name in points)
        if curves:
            charts.append(Chart(key, scale, curves))
    return Curves(tuple(charts), read.whole, read.damaged)


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> tuple[tuple[float, float], ...]:
    """At most so many points: means over equal parts, the last one being the last part's."""
    if len(points) <= most:
        return tuple(points)
    cuts = [len(points) * number // most for number in range(most + 1)]
    parts = [points[start:end] for start, end in itertools.pairwise(cuts)]
    return tuple((_mean(step for step, _ in part), _mean(value for _, value in part)) for part in parts)


def _points(rows: Iterable[Row]) -> dict[str, list[tuple[float, float]]]:
    """Metric -> (step, value), of rows that have a step."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 1 << 53:
            continue
        for name, value in numbers(row).items():
            if abs(value) < _MOST:
                points.setdefault(name, []).append((float(step), value))
    return {name: sorted(found) for name, found in points.items()}


def _layers(names: Iterable[str]) -> tuple[str, ...]:
    """The metrics of expert load, by layer."""
    found = sorted((int(match[1]), name) for name in names if (match := _LAYER.fullmatch(name)))
    return tuple(name for _, name in found[:_MOST_LAYERS])


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
