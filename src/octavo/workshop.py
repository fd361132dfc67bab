"""What a stage is given to work with, what it gives back, and how it says how far it is."""

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from octavo import rundir
from octavo.clock import Clock
from octavo.config import Config
from octavo.console import Display, Progress
from octavo.corpora import FilesCorpus, SolutionsCorpus
from octavo.engine.config import EngineConfig
from octavo.evals.evaluate import EvaluationConfig
from octavo.rundir import StageDir, SummaryRow
from octavo.tasks.build import TaskConfig
from octavo.train.progress import Progress as StepProgress
from octavo.validation import VALIDATION_ACCURACY
from octavo.world import World

_FIGURES = (rundir.LOSS,)
_RL_FIGURES = (
    rundir.REWARD,
    "correct",
    VALIDATION_ACCURACY,
    rundir.TIED_GROUPS,
    rundir.COMPLETION_TOKENS,
    rundir.ENTROPY,
)


@dataclass(frozen=True)
class Cost:
    """Tokens trained on and generated, and FLOPs by accounting."""

    tokens: int = 0
    flops: float = 0.0


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


@dataclass(frozen=True)
class Workshop:
    """What a stage is given to work with."""

    folder: StageDir
    sources: Mapping[str, StageDir]
    """Field of the stage -> folder of the finished stage that it names."""
    seed: int
    tasks: Mapping[str, TaskConfig]
    evaluation: EvaluationConfig
    engine: EngineConfig
    world: World
    meter: Meter
    display: Display


class Stage(Config):
    """One stage of a recipe."""

    accepts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Field that names another stage -> the kinds that it may be of."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Keys of the recipe, beside its own, that decide what the stage makes."""

    def inputs(self) -> dict[str, str]:
        """Field -> name of the stage that it reads."""
        values = {field: getattr(self, field) for field in self.accepts}
        return {field: name for field, name in values.items() if name is not None}

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
        """The corpus that it reads, if any."""
        return None

    def summary_row(self, folder: StageDir) -> SummaryRow | None:
        """What the finished stage adds to the closing table."""
        del folder
        return None

    @abstractmethod
    def run(self, workshop: Workshop) -> Cost:
        """Make what the stage makes, or go on with it where a killed process left it."""
