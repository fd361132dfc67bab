"""Kind `grpo`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.stages.cost import Cost, generation_cost, training_cost
from octavo.stages.learner import open_learner
from octavo.stages.reward_watch import RewardWatch
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop
from octavo.stages.trained import TrainedConfig
from octavo.train.grpo import GRPOConfig, grpo


class GRPOStage(GRPOConfig, TrainedConfig, Stage):
    """Reinforcement learning on the recipe's tasks."""

    kind: Literal["grpo"]
    model: str
    """Stage whose model is trained further."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks", "asking")

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.lora is not None and self.lora.dropout:
            raise ValueError(f"lora.dropout must be 0 in reinforcement learning, got {self.lora.dropout}")
        return self

    def run(self, workshop: Workshop) -> Cost:
        learner = open_learner(workshop, self.lora)
        mixture = workshop.mixture()
        exact = learner.completer(workshop)
        result = grpo(
            learner.model,
            learner.tokenizer,
            exact if self.sampler_weights == "exact" else learner.completer(workshop, self.sampler_weights),
            mixture,
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            RewardWatch(workshop.meter, workshop.folder, self.validation.problems if self.validation else 0),
            self.judge(workshop, learner, mixture, exact),
            workshop.asking,
        )
        learner.save(workshop.folder)
        context = self.rollouts.max_completion_tokens
        learned = training_cost(learner.model.config, result.tokens, context)
        drawn = generation_cost(learner.model.config, result.generated_tokens, context)
        return Cost(learned.tokens + drawn.tokens, learned.flops + drawn.flops)
