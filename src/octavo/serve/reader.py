"""From what an engine writes to what is shown: reasoning, content and function calls of one sample, apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from octavo.engine.drawn import DrawnToken
from octavo.engine.sequence import Event
from octavo.serve.calls import Delta, End, EndReason, Token, ToolCall, Usage
from octavo.serve.loaded import Loaded, single_token
from octavo.serve.tools import ToolReader
from octavo.tasks.types import Completion
from octavo.text.splitter import ReplySplitter
from octavo.text.tokens import ANSWER, END_ANSWER, THINK

if TYPE_CHECKING:
    from octavo.serve.guide import Guide


class Reader(ABC):
    """Reads the events of one sample."""

    @abstractmethod
    def read(self, event: Event) -> Iterator[Delta]:
        """What the event says. Raises ApiError if the sample could not be written as it was asked for."""


class TextReader(Reader):
    """Text is text."""

    def __init__(self, index: int, loaded: Loaded) -> None:
        self._index, self._loaded = index, loaded

    def read(self, event: Event) -> Iterator[Delta]:
        end, completion = None, event.completion
        if completion is not None:
            end = End(completion.finish_reason, _usage(completion))
        ends = self._loaded.tokenizer.end_ids
        tokens = tuple(self._loaded.tell(token) for token in event.tokens if token.id not in ends)
        yield Delta(self._index, content=event.text, tokens=tokens, end=end)


class ChatReader(Reader):
    """An assistant's reply.

    `<answer>` tags are taken out behind a reasoning, unless somebody asked for them (not `answer_tags`), and always of
    models that have them in their vocabulary.
    """

    def __init__(
        self, index: int, loaded: Loaded, reasoning_open: bool, tools: bool, answer_tags: bool, guide: Guide | None
    ) -> None:
        self._index, self._loaded, self._guide = index, loaded, guide
        tagged = loaded.answers_in_tags or (answer_tags and (loaded.reasons or reasoning_open))
        self._splitter = ReplySplitter(reasoning_open, tagged)
        self._tools = ToolReader() if tools else None
        self._reasoning = ""  # all of it
        self._space = ""  # at the end of the reasoning: shown if the reasoning goes on
        self._reasoned = reasoning_open
        self._answered = self._called = False
        tags = (THINK, ANSWER, END_ANSWER) if tagged else (THINK,)
        self._untold = loaded.tokenizer.end_ids | {single_token(loaded.tokenizer, tag) for tag in tags}

    def read(self, event: Event) -> Iterator[Delta]:
        tokens = event.tokens
        reasoning_before = self._splitter.part == "reasoning"
        pieces = list(self._splitter.feed(event.text))
        if event.completion is not None:
            pieces += self._splitter.flush()
        deltas = [delta for part, text in pieces for delta in self._part(part, text)]
        if event.completion is not None and self._tools is not None:
            deltas += [Delta(self._index, content=text) for text in self._tools.flush()]
        if told := self._told(tokens, reasoning_before):
            deltas.append(Delta(self._index, tokens=told))
        yield from deltas
        if event.completion is not None:
            yield Delta(self._index, end=self._end(event.completion))

    def _part(self, part: str, text: str) -> Iterator[Delta]:
        if part == "reasoning":
            self._reasoned = True
            text = self._space + text if self._reasoning else text.lstrip()
            shown = text.rstrip()
            self._space = text[len(shown) :]
            self._reasoning += shown
            if shown:
                yield Delta(self._index, reasoning=shown)
            return
        if part == "outside" and self._reasoned and (self._answered or not text.strip()):
            text = text if text.strip() else ""  # white space around the parts
        if not self._answered and self._reasoned:
            text = text.lstrip()
        if not text:
            return
        self._answered = True
        for piece in self._tools.feed(text) if self._tools else (text,):
            if isinstance(piece, ToolCall):
                self._called = True
                yield Delta(self._index, tool_calls=(piece,))
            else:
                yield Delta(self._index, content=piece)

    def _told(self, tokens: tuple[DrawnToken, ...], reasoning_before: bool) -> tuple[Token, ...]:
        """Those that belong to the content. One that closes the reasoning in part only is not told."""
        if self._splitter.part == "reasoning":
            return ()
        if reasoning_before:
            ids = [token.id for token in tokens]
            end = self._loaded.end_think_id
            tokens = tokens[ids.index(end) + 1 :] if end in ids else ()
        return tuple(self._loaded.tell(token) for token in tokens if token.id not in self._untold)

    def _end(self, completion: Completion) -> End:
        if self._guide is not None and completion.finish_reason == "stop":
            self._guide.check(self._index)
        reason: EndReason = completion.finish_reason
        if self._called and reason == "stop":
            reason = "tool_calls"
        return End(reason, _usage(completion, self._reasoning_tokens(completion.ids)))

    def _reasoning_tokens(self, ids: tuple[int, ...]) -> int:
        end = self._loaded.end_think_id
        if not self._reasoning:
            return 0
        if end in ids:
            return ids.index(end) + 1
        if self._splitter.part == "reasoning":
            return len(ids)
        return len(self._loaded.tokenizer.encode(self._reasoning))


def _usage(completion: Completion, reasoning_tokens: int = 0) -> Usage:
    return Usage(len(completion.prompt_ids), len(completion.ids), reasoning_tokens, completion.cached_tokens)
