"""Kind `sft`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.data.sources import FileSource
from octavo.stages.corpora import Corpus, open_corpus
from octavo.stages.cost import Cost, training_cost
from octavo.stages.learner import open_learner
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop
from octavo.stages.trained import TrainedConfig
from octavo.train.sft import SFTConfig, sft


class SFTStage(SFTConfig, TrainedConfig, Stage):
    """Supervised fine-tuning on conversations: a corpus, or what a `sample` stage kept."""

    kind: Literal["sft"]
    model: str
    """Stage whose model is fine-tuned."""
    data: str | None = None
    """Stage of kind `sample` whose samples are learned from ..."""
    corpus: Corpus | None = None
    """... or a corpus."""
    accepts: ClassVar = {"model": MODEL_KINDS, "data": ("sample",)}
    uses: ClassVar = ("tasks", "asking")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.data is None) == (self.corpus is None):
            raise ValueError("expected either data (a sample stage) or corpus")
        return self

    def read_corpus(self) -> Corpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        learner = open_learner(workshop, self.lora)
        if self.corpus is None:
            source = FileSource([workshop.sources["data"].samples])
        else:
            source = open_corpus(self.corpus, workshop.tasks, workshop.seed, workshop.asking)
        result = sft(
            learner.model,
            learner.tokenizer,
            source,
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            workshop.meter,
            self.judge(workshop, learner),
        )
        learner.save(workshop.folder)
        return training_cost(learner.model.config, result.tokens, self.tokens_per_row)
