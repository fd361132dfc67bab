"""Kind `pretrain`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.stages.corpora import Corpus, open_corpus
from octavo.stages.cost import Cost, training_cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.train.pretrain import PretrainConfig, pretrain
from octavo.weights.hf import load_tokenizer, save_model
from octavo.weights.hf_config import to_hugging_face


class PretrainStage(PretrainConfig, Stage):
    """Next-token prediction: a model from nothing, or one that is trained further."""

    kind: Literal["pretrain"]
    corpus: Corpus
    """What is read."""
    tokenizer: str | None = None
    """Stage whose vocabulary a new model gets."""
    model: ModelConfig | None = None
    """Architecture of a new model; its vocabulary is as large as the tokenizer's."""
    start: str | None = None
    """Stage whose model is trained further, instead of `tokenizer` and `model`."""
    accepts: ClassVar = {"tokenizer": ("tokenizer",), "start": MODEL_KINDS}
    uses: ClassVar = ("tasks",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        new = self.tokenizer is not None and self.model is not None
        if new == (self.start is not None) or (self.tokenizer is None) != (self.model is None):
            raise ValueError("expected either tokenizer and model (a new model) or start (one to train further)")
        return self

    def read_corpus(self) -> Corpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        if self.model is None:
            model, tokenizer = load(workshop, "start")
        else:
            tokenizer = load_tokenizer(workshop.sources["tokenizer"].model)
            model = Transformer(self.model.model_copy(update={"vocab_size": tokenizer.vocab_size}))
        to_hugging_face(model.config)  # a shape that cannot be saved is refused now, not after the training
        source = open_corpus(self.corpus, workshop.tasks, workshop.seed)
        result = pretrain(
            model, tokenizer, source, self, workshop.world, workshop.folder, workshop.seed, workshop.meter
        )
        save_model(workshop.folder.model, model, tokenizer)
        return training_cost(model.config, result.tokens, self.tokens_per_row)
