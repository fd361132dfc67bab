"""Watches reinforcement: tells when nobody is ever right, and when reward and held-out accuracy part.

A model may learn what pays instead of what is meant: its reward goes on rising while answers to questions that it is
not trained on get worse. Then the completions are to be read.
"""

import math
from collections.abc import Mapping

from octavo.rundir import VALIDATION_ACCURACY, StageDir, read_jsonl
from octavo.train.progress import Observer, Progress

_PATIENCE_STEPS = 5
_STANDARD_ERRORS = 2.0
_TRAINING_GAIN = 0.05
"""Rise of the training accuracy beside which a fall of the held-out one counts as parting."""


class RewardWatch:
    """An observer in front of another one. A resumed stage is judged by what stands in its metrics.jsonl."""

    def __init__(self, inner: Observer, folder: StageDir, judged: int) -> None:
        """`judged` is how many validation questions there are."""
        self._inner = inner
        self._judged = judged
        self._folder = folder
        self._rows: list[Mapping[str, float]] | None = None
        self._told: set[str] = set()

    def on_step(self, progress: Progress) -> None:
        self._inner.on_step(progress)
        if self._rows is None:
            self._rows = [row for row in read_jsonl(self._folder.metrics) if row["step"] < progress.step]
        self._rows.append(progress.metrics)
        self._tell("nobody", nobody_is_right(self._rows))
        self._tell("parted", reward_has_parted(self._rows, self._judged, str(self._folder.rollouts)))

    def on_warning(self, text: str) -> None:
        self._inner.on_warning(text)

    def _tell(self, what: str, text: str | None) -> None:
        """Once each."""
        if text and what not in self._told:
            self._told.add(what)
            self._inner.on_warning(f"warning: {text}")


def nobody_is_right(rows: list[Mapping[str, float]]) -> str | None:
    """What to say if no completion of the first steps was right."""
    first = rows[:_PATIENCE_STEPS]
    if len(rows) != _PATIENCE_STEPS or any(row["correct"] > 0 for row in first):
        return None
    drawn = sum(row["completions"] for row in first)
    return (
        f"none of {drawn:.0f} completions in the first {_PATIENCE_STEPS} steps was right, so reinforcement has nothing "
        "to begin with; fine-tune on worked answers first (sft), give easier questions, or allow longer answers"
    )


def reward_has_parted(rows: list[Mapping[str, float]], judged_problems: int, rollouts: str) -> str | None:
    """What to say if training answers got better since the best validation, while validation got clearly worse."""
    judged = [place for place, row in enumerate(rows) if VALIDATION_ACCURACY in row]
    if len(judged) < 2 or judged[-1] != len(rows) - 1:
        return None
    best = max(judged[:-1], key=lambda place: rows[place][VALIDATION_ACCURACY])
    high, low = rows[best][VALIDATION_ACCURACY], rows[-1][VALIDATION_ACCURACY]
    error = math.sqrt((high * (1 - high) + low * (1 - low)) / judged_problems)
    before, since = _mean(rows, max(0, best - (len(rows) - 1 - best)), best + 1), _mean(rows, best + 1, len(rows))
    if high - low <= _STANDARD_ERRORS * error or since - before < _TRAINING_GAIN:
        return None
    return (
        f"reward and held-out accuracy part: since step {best + 1} right answers in training rose from {before:.0%} to "
        f"{since:.0%}, on validation questions they fell from {high:.0%} to {low:.0%}. The model may be learning what "
        f"pays instead of what is meant: read what it writes in {rollouts}. The weights of step {best + 1} are kept"
    )


def _mean(rows: list[Mapping[str, float]], first: int, end: int) -> float:
    part = [row["correct"] for row in rows[first:end]]
    return sum(part) / len(part)
