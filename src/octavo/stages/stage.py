"""What every kind of stage has, and what it is given to work with."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from octavo.config import Config
from octavo.console import Display
from octavo.engine.config import EngineConfig
from octavo.errors import ConfigError
from octavo.evals.evaluate import EvaluationConfig
from octavo.model.transformer import Transformer
from octavo.rundir import StageDir, SummaryRow
from octavo.stages.corpora import Corpus, corpus_files
from octavo.stages.cost import Cost
from octavo.stages.meter import Meter
from octavo.tasks.asking import AskingConfig
from octavo.tasks.build import TaskConfig, build_mixture
from octavo.tasks.task import TaskMixture
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import load_model, load_tokenizer
from octavo.world import World

MODEL_KINDS = ("open", "extend_tokenizer", "pretrain", "sft", "grpo", "distill", "on_policy_distill")
"""Kinds that leave a model."""


@dataclass(frozen=True)
class Workshop:
    """What a stage is given to work with."""

    folder: StageDir
    sources: Mapping[str, StageDir]
    """Field of the stage -> folder of the finished stage that it names."""
    seed: int
    tasks: Mapping[str, TaskConfig]
    asking: AskingConfig
    evaluation: EvaluationConfig
    engine: EngineConfig
    world: World
    meter: Meter
    display: Display

    def mixture(self) -> TaskMixture:
        """The recipe's tasks, mixed; what cannot be graded is noted."""
        return build_mixture(list(self.tasks.values()), self.display.note)


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

    def decisive(self) -> dict[str, Any]:
        """Its config as far as it decides what the stage makes."""
        return self.dump()

    def read_corpus(self) -> Corpus | None:
        """The corpus that it reads, if any."""
        return None

    def files(self) -> dict[str, str]:
        """Path -> sha256 of what it reads from outside the run. Raises DataError where something is missing."""
        return corpus_files(self.read_corpus())

    def summary_row(self, folder: StageDir) -> SummaryRow | None:
        """What the finished stage adds to the closing table."""
        del folder
        return None

    @abstractmethod
    def run(self, workshop: Workshop) -> Cost:
        """Make what the stage makes, or go on with it where a killed process left it."""


def load(workshop: Workshop, field: str) -> tuple[Transformer, Tokenizer]:
    """Model and tokenizer of the stage that `field` names."""
    folder = workshop.sources[field].model
    return load_model(folder), load_tokenizer(folder)


def load_teacher(workshop: Workshop, tokenizer: Tokenizer) -> Transformer:
    """Model of the stage that `teacher` names. Raises ConfigError if its ids mean other tokens than the student's."""
    teacher, teachers = load(workshop, "teacher")
    if not tokenizer.same_vocabulary(teachers):
        raise ConfigError(
            f"{workshop.folder.path.name}: student and teacher have different vocabularies, so one cannot judge the "
            "other's tokens; distil from samples alone (kinds sample and distill, without a teacher)"
        )
    return teacher
