"""Kind `tokenizer`."""

from typing import ClassVar, Literal

from pydantic import Field

from octavo.errors import DataError
from octavo.stages.corpora import Corpus, open_corpus
from octavo.stages.cost import Cost
from octavo.stages.stage import Stage, Workshop
from octavo.text.template import format_reply
from octavo.text.tokenizer import Tokenizer


class TokenizerStage(Stage):
    """Learn a byte-level BPE vocabulary."""

    kind: Literal["tokenizer"]
    corpus: Corpus
    """What the vocabulary is learned from."""
    vocab_size: int = Field(gt=0)
    """Tokens, bytes and special tokens included."""
    uses: ClassVar = ("tasks",)

    def read_corpus(self) -> Corpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        source = open_corpus(self.corpus, workshop.tasks, workshop.seed)

        def texts():
            for index in range(len(source)):
                document = source.document(index)
                yield document.text or "\n".join(
                    message.content if message.reasoning is None else format_reply(message.reasoning, message.content)
                    for message in document.messages
                )
                if index % 256 == 255:
                    workshop.meter.show(index + 1, len(source), 0, {})

        tokenizer = Tokenizer.train(texts(), self.vocab_size)
        if tokenizer.vocab_size < self.vocab_size:
            raise DataError(
                f"the corpus has too little text for a vocab_size of {self.vocab_size}: no pair is left to merge after "
                f"{tokenizer.vocab_size} tokens; add text, or set the stage's vocab_size to {tokenizer.vocab_size}"
            )
        tokenizer.save(workshop.folder.model)
        return Cost()
