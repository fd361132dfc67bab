"""A conversation as the model sees it: control tokens, text, and which of it the model writes itself.

What people write never becomes a control token. Tools that render to one string and tokenize it afterwards cannot
tell a `<|user|>` of the template from one typed by a user; here the template is rendered with the typed ones broken by
a mark, cut at those that are left, and the mark is taken out again before the pieces are tokenized.

What the model writes is marked by the template itself (`{% generation %}`), or found by rendering: it is what a turn
adds to the prompt before it, up to and with the token that ends the turn. A turn from which the template has removed
the reasoning is not what the model would write, and counts as context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.errors import DataError
from octavo.text.chat_template import ChatTemplate, PromptOptions
from octavo.text.messages import Message
from octavo.text.tokens import END_THINK, THINK

_PRIVATE_USE = range(0xF0000, 0xFFFFE)  # Unicode plane 15: characters without a meaning


@dataclass(frozen=True)
class Segment:
    """A run of rendered text that is one control token, or plain text. `generated`: the model itself writes it."""

    text: str
    control: bool
    generated: bool


class Conversation:
    """Messages ready for a template. `control` matches tokens that only the template writes, `ends` those that end a
    turn."""

    def __init__(
        self,
        template: ChatTemplate,
        control: re.Pattern[str],
        ends: re.Pattern[str],
        messages: Sequence[Message],
        options: PromptOptions | None = None,
    ) -> None:
        self._template = template
        self._control = control
        self._ends = ends
        plain = [template.plain(message) for message in messages]
        variables = (options or PromptOptions()).variables()
        self._guard, self._opening, self._closing = _unused_characters([*_strings(plain), *_strings(variables)])
        self._messages: list[dict[str, Any]] = self._guarded(plain)
        self._variables: dict[str, Any] = self._guarded(variables)

    def prompt(self) -> list[Segment]:
        """Up to where the assistant begins to write. Raises DataError."""
        return list(self._cut(self._text(add_generation_prompt=True)))

    def document(self) -> list[Segment]:
        """The whole conversation. Raises DataError."""
        return list(self._cut(self._text(marked=True) if self._template.marks_generation else self._marked()))

    def _text(
        self,
        turns: int | None = None,
        add_generation_prompt: bool = False,
        marked: bool = False,
        messages: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The first `turns` messages, rendered; typed control tokens are broken."""
        marks = (self._opening, self._closing) if marked else ("", "")
        messages = self._messages[:turns] if messages is None else messages
        return self._template.render_plain(messages, add_generation_prompt, self._variables, *marks)

    def _marked(self) -> str:
        """The rendered conversation with marks around what the assistant writes.

        Its last turn stands behind the prompt that it would be given, even where the template renders a finished
        conversation otherwise: without the system message (Mistral), or without the reasoning (DeepSeek-R1).
        """
        final = self._messages[-1]["role"] == "assistant"
        turns = len(self._messages) - final
        context = self._text(turns, add_generation_prompt=final)
        spans = self._spans(turns, context, final)
        if final:
            whole = self._text()
            written = self._written(turns, context, whole)
            if written is None:
                return whole
            spans.append((len(context), len(context) + len(written)))
            context += written + whole[self._last_end(whole) :]
        return self._with_marks(context, spans)

    def _spans(self, turns: int, context: str, prompt: bool) -> list[tuple[int, int]]:
        """Where in the first `turns` messages, rendered as `context`, the assistant writes."""
        ends = self._ends_of_turns(turns, context, prompt)
        starts = {turn: self._start_of_turn(turn, context, *both) for turn, both in ends.items()}
        return [(start, ends[turn][1]) for turn, start in starts.items() if start is not None]

    def _ends_of_turns(self, turns: int, context: str, prompt: bool) -> dict[int, tuple[int, int]]:
        """Assistant turn -> where its content ends in the rendered text, and where its end token does.

        A mark that is appended to each content shows where; contents may be trimmed when they are rendered.
        """
        messages = [dict(message) for message in self._messages[:turns]]
        replies = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
        for turn in replies:
            messages[turn]["content"] += self._closing
        pieces = self._text(None, prompt, messages=messages).split(self._closing) if replies else [""]
        ends, at = {}, 0
        for turn, piece in zip(replies, pieces if len(pieces) == len(replies) + 1 else (), strict=False):
            piece = piece if context.startswith(piece, at) else piece.rstrip()
            if not context.startswith(piece, at):
                break  # the template leaves turns out, or writes them otherwise
            at += len(piece)
            match = self._ends.match(context, at)
            ends[turn] = (at, match.end() if match else at)
        return ends

    def _start_of_turn(self, turn: int, context: str, content_end: int, end: int) -> int | None:
        """Where the assistant begins to write an earlier turn; None if it did not write it as it stands there."""
        try:
            prompt, alone = self._text(turn, add_generation_prompt=True), self._text(turn + 1)
        except DataError:  # a template may refuse to begin with the assistant
            return None
        written = self._written(turn, prompt, alone)
        if written and context.endswith(written, 0, end):
            return end - len(written)
        message = self._messages[turn]
        if "reasoning_content" in message or END_THINK in message["content"]:
            return None
        rendered = (message["content"], message["content"].strip())
        return next((content_end - len(text) for text in rendered if context.endswith(text, 0, content_end)), None)

    def _written(self, turn: int, prompt: str, alone: str) -> str | None:
        """What the assistant writes behind `prompt`, if the conversation up to its turn is rendered as `alone`."""
        end = self._last_end(alone)
        if alone.startswith(prompt):
            return alone[len(prompt) : end]
        controls = [match.start() for match in self._control.finditer(prompt)]
        anchor = prompt[controls[-1] if controls else 0 :]
        if (found := alone.rfind(anchor)) >= 0:
            return alone[found + len(anchor) : end]
        if (found := alone.rfind(anchor.rstrip())) >= 0:
            return alone[found + len(anchor.rstrip()) : end].lstrip()
        if not ends_in_reasoning(prompt):
            return None
        tokens = [match for match in self._ends.finditer(alone) if match.end() == end]
        return self._reply(turn, prompt) + (tokens[-1][0].lstrip() if tokens else "")

    def _reply(self, turn: int, prompt: str) -> str:
        """What is to be written behind a prompt that has opened the reasoning, by a template that shows none of it."""
        content = self._messages[turn]["content"]
        reasoning, closing, answer = content.rpartition(END_THINK)
        if closing:
            return reasoning.rpartition(THINK)[2].lstrip() + closing + answer
        return f"\n{END_THINK}\n\n{content}" if prompt.endswith("\n") else END_THINK + content

    def _last_end(self, text: str) -> int:
        """Behind the last end token, if only white space follows."""
        matches = list(self._ends.finditer(text))
        return matches[-1].end() if matches and not text[matches[-1].end() :].strip() else len(text)

    def _with_marks(self, whole: str, spans: Iterable[tuple[int, int]]) -> str:
        pieces, done = [], 0
        for start, end in spans:
            pieces += [whole[done:start], self._opening, whole[start:end], self._closing]
            done = end
        return "".join([*pieces, whole[done:]])

    def _cut(self, rendered: str) -> Iterator[Segment]:
        generated = False
        for part in re.split(f"({self._control.pattern}|{self._opening}|{self._closing})", rendered):
            if part in (self._opening, self._closing):
                generated = part == self._opening
            elif part:
                yield Segment(part.replace(self._guard, ""), self._control.fullmatch(part) is not None, generated)

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._control.sub(lambda match: match[0][0] + self._guard + match[0][1:], value)
        if isinstance(value, Mapping):
            return {key: self._guarded(item) for key, item in value.items()}
        return [self._guarded(item) for item in value] if isinstance(value, (list, tuple)) else value


def ends_in_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt has opened the reasoning that the model goes on with."""
    return prompt.rstrip().endswith(THINK)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _unused_characters(texts: Iterable[str]) -> tuple[str, str, str]:
    whole = "".join(texts)
    unused = (char for char in map(chr, _PRIVATE_USE) if char not in whole)
    return next(unused), next(unused), next(unused)
