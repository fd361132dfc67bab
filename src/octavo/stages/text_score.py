"""Kind `text_score`."""

from typing import ClassVar, Literal

from pydantic import Field

from octavo.evals.perplexity import english_prose, score_texts
from octavo.stages.corpora import FilesCorpus, plain_texts
from octavo.stages.cost import Cost, generation_cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.storage import write_json

_WINDOW_TOKENS = 512


class TextScoreStage(Stage):
    """How well a model foretells some text: run it before and after training, and forgetting shows."""

    kind: Literal["text_score"]
    model: str
    """Stage whose model is measured."""
    text: FilesCorpus | None = None
    """Plain text to foretell; None: English prose of 1889 that comes with reasoning-gym."""
    most_bytes: int = Field(default=20_000, gt=0)
    """Of long texts, the beginning of each document counts, so that it is about so much in all."""
    accepts: ClassVar = {"model": MODEL_KINDS}

    def read_corpus(self) -> FilesCorpus | None:
        return self.text

    def run(self, workshop: Workshop) -> Cost:
        """Writes text_score.json."""
        model, tokenizer = load(workshop, "model")
        score = score_texts(model, tokenizer, self._texts(), _WINDOW_TOKENS)
        write_json(workshop.folder.text_score, score.dump())
        workshop.display.note(f"  {self.model}: {score.bits_per_byte:.3f} bits a byte of {score.bytes:,} bytes of text")
        return generation_cost(model.config, score.tokens, _WINDOW_TOKENS)

    def _texts(self) -> list[str]:
        if self.text is None:
            return english_prose(self.most_bytes)
        texts = plain_texts(self.text)
        # Of each document the beginning: long ones shall not stand for all.
        most_bytes = max(1, self.most_bytes // len(texts))
        return [text.encode()[:most_bytes].decode(errors="ignore") for text in texts]
