"""How finely a tokenizer cuts a text, and which words two tokenizers cut differently."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.config import Config
from octavo.text.tokenizer import Tokenizer


class Fertility(Config):
    """Sizes of one text; words are what white space separates."""

    tokens: int
    words: int
    bytes: int

    @property
    def tokens_per_word(self) -> float:
        return self.tokens / max(self.words, 1)

    @property
    def bytes_per_token(self) -> float:
        """Also for languages that are written without spaces."""
        return self.bytes / max(self.tokens, 1)


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> Fertility:
    """Measure it."""
    tokens = words = size = 0
    for text in texts:
        tokens += len(tokenizer.encode(text))
        words += len(text.split())
        size += len(text.encode())
    return Fertility(tokens=tokens, words=words, bytes=size)
