"""Streamed text of an assistant, split at the tags while it comes."""

from collections.abc import Iterator
from typing import Literal

from octavo.text.tokens import ANSWER, END_ANSWER, TAG_TOKENS

Part = Literal["reasoning", "answer", "outside"]
_PART_AFTER: dict[str, Part] = dict(zip(TAG_TOKENS, ("reasoning", "outside", "answer", "outside"), strict=True))


class ReplySplitter:
    """Splits streamed text at the tags; a tag may arrive in pieces.

    `reasoning_open`: the prompt had opened the reasoning. Not `answer_tags`: `<answer>` is text like any other, as
    for models to which it means nothing unless somebody asks for it.
    """

    def __init__(self, reasoning_open: bool = False, answer_tags: bool = True) -> None:
        self._part: Part = "reasoning" if reasoning_open else "outside"
        self._tags = TAG_TOKENS if answer_tags else tuple(tag for tag in TAG_TOKENS if tag not in (ANSWER, END_ANSWER))
        self._held = ""

    @property
    def part(self) -> Part:
        """Where the text is that has not come yet, as far as is known."""
        return self._part

    def feed(self, text: str) -> Iterator[tuple[Part, str]]:
        """Yield (part, text) of what is certain."""
        self._held += text
        while (tag := self._first_tag()) is not None:
            before, _, self._held = self._held.partition(tag)
            if before:
                yield self._part, before
            self._part = _PART_AFTER[tag]
        certain = len(self._held) - self._begun_tag()
        if certain:
            yield self._part, self._held[:certain]
        self._held = self._held[certain:]

    def flush(self) -> Iterator[tuple[Part, str]]:
        """Yield what was held back as the possible beginning of a tag."""
        if self._held:
            yield self._part, self._held
        self._held = ""

    def _first_tag(self) -> str | None:
        found = [(at, tag) for tag in self._tags if (at := self._held.find(tag)) >= 0]
        return min(found)[1] if found else None

    def _begun_tag(self) -> int:
        """Length of the longest end of the held text that begins a tag."""
        lengths = range(min(len(self._held), max(map(len, self._tags)) - 1), 0, -1)
        return next((n for n in lengths if any(tag.startswith(self._held[-n:]) for tag in self._tags)), 0)
