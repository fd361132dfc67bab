"""Kind `on_policy_distill`."""

from typing import ClassVar, Literal

from octavo.stages.cost import Cost, generation_cost, training_cost
from octavo.stages.learner import open_learner
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load_teacher
from octavo.stages.trained import TrainedConfig
from octavo.tasks.types import Problem
from octavo.train.on_policy_distill import OnPolicyDistillConfig, distill_on_policy


class OnPolicyDistillStage(OnPolicyDistillConfig, TrainedConfig, Stage):
    """A small model answers the recipe's problems, and a larger one with the same tokenizer says how likely each of its
    words was."""

    kind: Literal["on_policy_distill"]
    model: str
    """Stage whose model is the student."""
    teacher: str
    """Stage whose model is the teacher."""
    accepts: ClassVar = {"model": MODEL_KINDS, "teacher": MODEL_KINDS}
    uses: ClassVar = ("tasks", "asking")

    def run(self, workshop: Workshop) -> Cost:
        learner = open_learner(workshop, self.lora)
        student, tokenizer = learner.model, learner.tokenizer
        teacher = load_teacher(workshop, tokenizer)

        def encode(problem: Problem) -> tuple[int, ...]:
            return workshop.asking.prompt(tokenizer, problem)

        mixture, completer = workshop.mixture(), learner.completer(workshop)
        result = distill_on_policy(
            student,
            teacher,
            completer,
            mixture,
            encode,
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            workshop.meter,
            self.judge(workshop, learner, mixture, completer),
        )
        learner.save(workshop.folder)
        context = self.max_completion_tokens
        learned = training_cost(student.config, result.tokens, context)
        judged = generation_cost(teacher.config, result.tokens, context)
        return Cost(learned.tokens + judged.tokens, learned.flops + judged.flops)
