"""Kind `grpo`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.engine.engine import Engine
from octavo.stages.cost import Cost, generation_cost, training_cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.stages.validation import ValidationConfig, validation
from octavo.tasks.build import build_mixture
from octavo.train.grpo import GRPOConfig, grpo
from octavo.weights.hf import save_model


class GRPOStage(GRPOConfig, Stage):
    """Reinforcement learning on the recipe's tasks."""

    kind: Literal["grpo"]
    model: str
    """Stage whose model is trained further."""
    validation: ValidationConfig | None = None
    """How weights are judged every `loop.evaluate_every_steps`; the best ones are kept."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks", "asking")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.validation is None) != (self.loop.evaluate_every_steps is None):
            raise ValueError("validation and loop.evaluate_every_steps go together: give both or neither")
        return self

    def run(self, workshop: Workshop) -> Cost:
        model, tokenizer = load(workshop, "model")
        mixture = build_mixture(list(workshop.tasks.values()))
        engine = Engine(model, tokenizer, workshop.engine)
        judge = self.validation and validation(
            self.validation, mixture, engine, tokenizer, workshop.seed, workshop.asking
        )
        result = grpo(
            model,
            tokenizer,
            engine,
            mixture,
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            workshop.meter,
            judge,
            workshop.asking,
        )
        save_model(workshop.folder.model, model, tokenizer)
        context = self.rollouts.max_completion_tokens
        learned = training_cost(model.config, result.tokens, context)
        drawn = generation_cost(model.config, result.generated_tokens, context)
        return Cost(learned.tokens + drawn.tokens, learned.flops + drawn.flops)
