"""Kind `distill`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.data.sources import FileSource
from octavo.stages.cost import Cost, generation_cost, training_cost
from octavo.stages.learner import open_learner
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load_teacher
from octavo.stages.trained import TrainedConfig
from octavo.train.distill import DistillConfig, distill


class DistillStage(DistillConfig, TrainedConfig, Stage):
    """A small model learns from what a larger one wrote: by plain SFT, as DeepSeek-R1 did, or from the teacher too."""

    kind: Literal["distill"]
    model: str
    """Stage whose model is the student."""
    data: str
    """Stage of kind `sample` that holds the teacher's solutions."""
    teacher: str | None = None
    """Stage whose model is the teacher; needed only where `teacher_share` is above 0."""
    accepts: ClassVar = {"model": MODEL_KINDS, "data": ("sample",), "teacher": MODEL_KINDS}
    uses: ClassVar = ("tasks", "asking")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.teacher is None) != (self.teacher_share == 0):
            raise ValueError("teacher and a teacher_share above 0 go together: give both or neither")
        return self

    def run(self, workshop: Workshop) -> Cost:
        learner = open_learner(workshop, self.lora)
        teacher = None if self.teacher is None else load_teacher(workshop, learner.tokenizer)
        result = distill(
            learner.model,
            learner.tokenizer,
            FileSource([workshop.sources["data"].samples]),
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            teacher,
            workshop.meter,
            self.judge(workshop, learner),
        )
        learner.save(workshop.folder)
        cost = training_cost(learner.model.config, result.tokens, self.tokens_per_row)
        if teacher is None:
            return cost
        return Cost(cost.tokens, cost.flops + generation_cost(teacher.config, result.tokens, self.tokens_per_row).flops)
