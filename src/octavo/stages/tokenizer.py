"""Kind `tokenizer`."""

from typing import ClassVar, Literal

from pydantic import Field

from octavo.stages.corpora import Corpus, FilesCorpus, SolutionsCorpus, open_corpus
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
    """Tokens, bytes and special tokens included; fewer if the corpus has no more pairs to merge."""
    uses: ClassVar = ("tasks",)

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
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

        Tokenizer.train(texts(), self.vocab_size).save(workshop.folder.model)
        return Cost()
