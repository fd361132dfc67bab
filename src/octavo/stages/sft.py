"""Kind `sft`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.data.sources import FileSource
from octavo.stages.corpora import Corpus, FilesCorpus, SolutionsCorpus, open_corpus
from octavo.stages.cost import Cost, training_cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.train.sft import SFTConfig, sft
from octavo.weights.hf import save_model


class SFTStage(SFTConfig, Stage):
    """Supervised fine-tuning on conversations: a corpus, or what a `sample` stage kept."""

    kind: Literal["sft"]
    model: str
    """Stage whose model is fine-tuned."""
    data: str | None = None
    """Stage of kind `sample` whose samples are learned from ..."""
    corpus: Corpus | None = None
    """... or a corpus."""
    accepts: ClassVar = {"model": MODEL_KINDS, "data": ("sample",)}
    uses: ClassVar = ("tasks",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.data is None) == (self.corpus is None):
            raise ValueError("expected either data (a sample stage) or corpus")
        return self

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        model, tokenizer = load(workshop, "model")
        if self.corpus is None:
            source = FileSource([workshop.sources["data"].samples])
        else:
            source = open_corpus(self.corpus, workshop.tasks, workshop.seed)
        result = sft(model, tokenizer, source, self, workshop.world, workshop.folder, workshop.seed, workshop.meter)
        save_model(workshop.folder.model, model, tokenizer)
        return training_cost(model.config, result.tokens, self.tokens_per_row)
