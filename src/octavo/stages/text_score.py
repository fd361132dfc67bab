"""Kind `text_score`."""

from typing import ClassVar, Literal

from octavo.data.sources import FileSource
from octavo.errors import DataError
from octavo.evals.perplexity import english_prose, score_texts
from octavo.stages.corpora import FilesCorpus
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
            return english_prose()
        source = FileSource(self.text.paths, self.text.separator)
        documents = [source.document(index) for index in range(len(source))]
        if any(document.text is None for document in documents):
            raise DataError(f"{', '.join(self.text.paths)}: a text_score needs plain text, and there are conversations")
        return [document.text for document in documents if document.text is not None]
