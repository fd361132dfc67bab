"""How far a stage is, as its display wants to know it."""

import time
from collections.abc import Mapping

from octavo import rundir
from octavo.clock import Clock
from octavo.console import Display, Progress
from octavo.train.progress import Progress as StepProgress

_FIGURES = (rundir.LOSS,)
_RL_FIGURES = (
    rundir.REWARD,
    rundir.CORRECT,
    rundir.VALIDATION_ACCURACY,
    rundir.TIED_GROUPS,
    rundir.COMPLETION_TOKENS,
    rundir.ENTROPY,
)


class Meter:
    """How far a stage is, as its display wants to know it. Also the observer of a training loop (train/progress.py)."""

    def __init__(self, stage: str, display: Display, clock: Clock):
        self._stage = stage
        self._display = display
        self._clock = clock
        self._start = time.perf_counter()
        self._first_step: int | None = None

    def show(self, step: int, steps: int, tokens: int, figures: Mapping[str, float]) -> None:
        """`step` of `steps` is done; `tokens` were read and written since the stage, or its resumed piece, began."""
        seconds = time.perf_counter() - self._start
        if self._first_step is None:  # a resumed stage begins somewhere in the middle
            self._first_step = step - 1
        left = seconds / (step - self._first_step) * (steps - step)
        self._show(Progress(self._stage, step, steps, figures, tokens / seconds, left, self._clock.memory.bytes()))

    def on_step(self, progress: StepProgress) -> None:
        """One optimizer step is done."""
        metrics = progress.metrics
        figures = {
            name: metrics[name] for name in (_RL_FIGURES if rundir.REWARD in metrics else _FIGURES) if name in metrics
        }
        rate, memory = metrics[rundir.TOKENS_PER_SECOND], self._clock.memory.bytes()
        self._show(Progress(self._stage, progress.step, progress.steps, figures, rate, progress.seconds_left, memory))

    def on_warning(self, text: str) -> None:
        self._display.note(text)

    def _show(self, progress: Progress) -> None:
        self._clock.tick()
        self._display.progress(progress)
