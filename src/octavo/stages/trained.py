"""What the stages share that train a model further: adapters, and the choice of the best weights."""

from typing import Self

from pydantic import model_validator

from octavo.config import Config
from octavo.model.lora import LoraConfig
from octavo.stages.learner import Learner
from octavo.stages.stage import Workshop
from octavo.stages.validation import ValidationConfig, validation
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import Completer
from octavo.train.types import HeldOut, LoopConfig


class TrainedConfig(Config):
    """Of stages that train a model further."""

    loop: LoopConfig
    lora: LoraConfig | None = None
    """Train adapters of low rank and keep the weights frozen; None: train all weights."""
    validation: ValidationConfig | None = None
    """How weights are judged every `loop.evaluate_every_steps`, and after the last; the best ones are kept."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.validation is None) != (self.loop.evaluate_every_steps is None):
            raise ValueError("validation and loop.evaluate_every_steps go together: give both or neither")
        return self

    def judge(
        self,
        workshop: Workshop,
        learner: Learner,
        mixture: TaskMixture | None = None,
        completer: Completer | None = None,
    ) -> HeldOut | None:
        """How the weights are judged, if they are. `mixture` and `completer` where the stage has them anyway."""
        if self.validation is None:
            return None
        return validation(
            self.validation,
            mixture or workshop.mixture(),
            completer or learner.completer(workshop),
            learner.tokenizer,
            workshop.seed,
            workshop.asking,
        )
