"""Kind `extend_tokenizer`."""

from typing import ClassVar, Literal

from pydantic import Field

from octavo.config import Config
from octavo.evals.perplexity import english_prose
from octavo.model.vocabulary import add_tokens
from octavo.stages.corpora import FilesCorpus, corpus_files, plain_texts
from octavo.stages.cost import Cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.storage import write_json
from octavo.text.extension import extended, learn_extension
from octavo.text.fertility import Fertility, fertility
from octavo.weights.hf import save_model

_WHOLE_STORY = 1 << 20


class Vocabulary(Config):
    """What vocabulary.json says: how finely text was cut before, and is cut now."""

    new_tokens: int
    vocab_size: int
    """After, gaps included."""
    language_before: Fertility
    """Of held-out documents of the corpus if it is the train part, else of the corpus itself."""
    language_after: Fertility
    english_before: Fertility
    """Of English prose that was not among the text to keep."""
    english_after: Fertility


class ExtendTokenizerStage(Stage):
    """Give a model tokens for a language that its tokenizer cuts into bytes; train it further afterwards."""

    kind: Literal["extend_tokenizer"]
    model: str
    """Stage whose model is extended; its tokenizer must be byte-level BPE."""
    corpus: FilesCorpus
    """Text of the language: the new tokens are learned from it."""
    new_tokens: int = Field(default=4096, gt=0)
    """How many; each adds a row to the embedding (and to the head, where that is a matrix of its own)."""
    keep: FilesCorpus | None = None
    """Plain text that must be cut as before; None: half of the English prose that comes with reasoning-gym."""
    accepts: ClassVar = {"model": MODEL_KINDS}

    def read_corpus(self) -> FilesCorpus:
        return self.corpus

    def files(self) -> dict[str, str]:
        return corpus_files(self.corpus) | corpus_files(self.keep)

    def run(self, workshop: Workshop) -> Cost:
        """Writes model/ and vocabulary.json."""
        model, tokenizer = load(workshop, "model")
        story = english_prose(_WHOLE_STORY)[0]
        middle = story.rindex(" ", 0, len(story) // 2)
        kept = [story[:middle]] if self.keep is None else plain_texts(self.keep)
        extension = learn_extension(tokenizer, plain_texts(self.corpus), kept, self.new_tokens)
        larger = extended(tokenizer, extension)
        add_tokens(model, list(extension.pieces.values()), first=tokenizer.vocab_size)
        save_model(workshop.folder.model, model, larger)
        unseen = self.corpus.model_copy(update={"part": "held_out"}) if self.corpus.part == "train" else self.corpus
        texts, english = plain_texts(unseen), [story[middle:]]
        report = Vocabulary(
            new_tokens=len(extension.pieces),
            vocab_size=larger.vocab_size,
            language_before=fertility(tokenizer, texts),
            language_after=fertility(larger, texts),
            english_before=fertility(tokenizer, english),
            english_after=fertility(larger, english),
        )
        write_json(workshop.folder.vocabulary, report.dump())
        workshop.display.note(
            f"  {report.new_tokens:,} new tokens: {_change(report.language_before, report.language_after)} in "
            f"{', '.join(self.corpus.paths)}, {_change(report.english_before, report.english_after)} in English prose"
        )
        return Cost()


def _change(before: Fertility, after: Fertility) -> str:
    return f"{before.tokens_per_word:.2f} -> {after.tokens_per_word:.2f} tokens a word"
