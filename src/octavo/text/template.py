"""The one owner of the text format: special tokens, chat template, loss mask, `<think>` and `<answer>`.

A conversation reads  <|system|>S<|user|>Q<|assistant|><think>R</think><answer>A</answer><|end|>  (the system message
is optional); a plain document ends with <|endoftext|>. The order of turns is a Jinja template that is saved with the
model, so that every other tool renders the same string.

What people write never becomes a control token. Tools that render to one string and tokenize it afterwards cannot
tell a `<|user|>` of the template from one typed by a user; here the template is rendered with the typed ones broken by
a mark, cut at those that are left, and the mark is taken out again before the pieces are tokenized.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from octavo.errors import CheckpointError, DataError
from octavo.text.messages import Document, Message

if TYPE_CHECKING:
    from octavo.text.tokenizer import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
"""Ends a plain document; also the padding token."""
END_OF_TURN = "<|end|>"
"""Ends what the assistant says."""
CONTROL_TOKENS = (END_OF_DOCUMENT, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN)
"""Never typed by anyone, never shown."""
THINK, END_THINK, ANSWER, END_ANSWER = TAG_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
"""One token each wherever they are typed, and shown in decoded text."""

_TAG = re.compile("(" + "|".join(TAG_TOKENS) + ")")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)  # Unicode plane 15: characters without a meaning


@dataclass(frozen=True)
class TokenDocument:
    """Token ids of one document; `weights[i]` is the loss weight of predicting `ids[i]` (0: context only)."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Segment:
    """A run of rendered text that is one control token, or plain text. `generated`: the model itself writes it."""

    text: str
    control: bool
    generated: bool


class ChatTemplate:
    """A compiled Jinja chat template, sandboxed, with the dialect of `transformers`. Raises CheckpointError."""

    def __init__(self, source: str) -> None:
        self.source = source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag]
        )
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(f"chat template: not valid Jinja: {error}") from error

    @classmethod
    def default(cls) -> ChatTemplate:
        """The project's own format, as the module docstring gives it."""
        return cls(resources.files("octavo.text").joinpath("chat_template.jinja").read_text(encoding="utf-8"))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as one string, the same that `apply_chat_template` gives. Raises DataError."""
        return self._render([_as_mapping(message) for message in messages], add_generation_prompt, "", "")

    def segments(
        self, messages: Sequence[Message], control: re.Pattern[str], add_generation_prompt: bool
    ) -> Iterator[Segment]:
        """Cut the rendered conversation at its control tokens (matched by `control`); those inside messages are text.

        The texts joined are `render(...)`. Raises DataError.
        """
        plain = [_as_mapping(message) for message in messages]
        guard, opening, closing = _unused_characters(text for message in plain for text in message.values())
        guarded = [
            {key: control.sub(lambda match: match[0][0] + guard + match[0][1:], text) for key, text in message.items()}
            for message in plain
        ]
        rendered = self._render(guarded, add_generation_prompt, opening, closing)
        generated = False
        for part in re.split(f"({control.pattern}|{opening}|{closing})", rendered):
            if part in (opening, closing):
                generated = part == opening
            elif part:
                yield Segment(part.replace(guard, ""), control.fullmatch(part) is not None, generated)

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool, opening: str, closing: str) -> str:
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                generation_opening=opening,
                generation_closing=closing,
            )
        except jinja2.TemplateError as error:
            raise DataError(f"chat template: {error}") from error


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids up to where the assistant begins to write. Raises DataError if the last message is not the user's."""
    if not messages or messages[-1].role != "user":
        got = f"{messages[-1].role}" if messages else "no message"
        raise DataError(f"a prompt must end with a user message, got {got}")
    segments = list(tokenizer.template.segments(messages, tokenizer.control_pattern, add_generation_prompt=True))
    return _encode_segments(tokenizer, [segments])[0].ids


def encode_document(tokenizer: Tokenizer, document: Document, train_on_prompts: bool = False) -> TokenDocument:
    """Ids and loss weights of one document; see `encode_documents`."""
    return encode_documents(tokenizer, [document], train_on_prompts)[0]


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[Document], train_on_prompts: bool = False
) -> list[TokenDocument]:
    """Ids and loss weights of many documents, tokenized together.

    Plain text, with its closing <|endoftext|>, has weight 1 everywhere. A conversation has weight 1 on what the model
    must write itself (the assistant's turns with their <|end|>, except turns that are read without the reasoning that
    led to them), 0 elsewhere; with `train_on_prompts`, as pretraining wants it, 1 everywhere.
    Raises DataError for a document that is empty, or that leaves nothing to learn.
    """
    segmented = [list(_document_segments(tokenizer, document)) for document in documents]
    encoded = _encode_segments(tokenizer, segmented)
    if train_on_prompts:
        return [TokenDocument(document.ids, [1.0] * len(document.ids)) for document in encoded]
    for document in encoded:
        if 1.0 not in document.weights:
            raise DataError("a conversation without an assistant turn leaves nothing to learn: add one or drop it")
    return encoded


def _document_segments(tokenizer: Tokenizer, document: Document) -> Iterable[Segment]:
    if (document.text is None) == (not document.messages):
        raise DataError("a document must have either text or messages")
    if document.text is None:
        return tokenizer.template.segments(document.messages, tokenizer.control_pattern, add_generation_prompt=False)
    return (Segment(document.text, False, True), Segment(tokenizer.end_of_document, True, True))


def _encode_segments(tokenizer: Tokenizer, segmented: Sequence[Sequence[Segment]]) -> list[TokenDocument]:
    texts = [segment.text for segments in segmented for segment in segments if not segment.control]
    encoded = iter(tokenizer.encode_batch(texts))
    documents = []
    for segments in segmented:
        document = TokenDocument([], [])
        for segment in segments:
            ids = [tokenizer.token_id(segment.text)] if segment.control else next(encoded)
            document.ids.extend(ids)
            document.weights.extend([float(segment.generated)] * len(ids))
        documents.append(document)
    return documents


@dataclass(frozen=True)
class Reply:
    """What an assistant's text holds. `well_formed`: <think>R</think><answer>A</answer>, each tag once, no other text.

    A text that is not well formed still has the reasoning and the answer that stand in its last complete pair of tags.
    """

    reasoning: str | None
    answer: str | None
    well_formed: bool


def parse_reply(text: str) -> Reply:
    """Find reasoning and answer, as they stand between the tags (not stripped). Total; linear in the text."""
    parts = _TAG.split(text)  # text, tag, text, tag, ..., text
    outside = parts[0] + parts[4] + parts[8] if tuple(parts[1::2]) == TAG_TOKENS else None
    return Reply(
        reasoning=_last_between(parts, THINK, END_THINK),
        answer=_last_between(parts, ANSWER, END_ANSWER),
        well_formed=outside is not None and not outside.strip(),
    )


def format_reply(reasoning: str, answer: str) -> str:
    """The well-formed reply: `parse_reply` gives both back (unless they hold tags themselves)."""
    return f"{THINK}{reasoning}{END_THINK}{ANSWER}{answer}{END_ANSWER}"


def _last_between(parts: Sequence[str], opening: str, closing: str) -> str | None:
    start, found = None, None
    for index in range(1, len(parts), 2):
        if parts[index] == opening:
            start = index + 1
        elif parts[index] == closing and start is not None:
            found, start = (start, index), None
    return None if found is None else "".join(parts[found[0] : found[1]])


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, the tag of `transformers` for what the model writes itself.

    The block is put between the variables `generation_opening` and `generation_closing`.
    """

    tags = {"generation"}  # noqa: RUF012 (the type that jinja2 declares)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opening = nodes.Output([nodes.Name("generation_opening", "load")], lineno=line)
        closing = nodes.Output([nodes.Name("generation_closing", "load")], lineno=line)
        return [opening, *body, closing]


def _as_mapping(message: Message) -> dict[str, str]:
    values = {"role": message.role, "content": message.content}
    return values if message.reasoning is None else {**values, "reasoning_content": message.reasoning}


def _unused_characters(texts: Iterable[str]) -> tuple[str, str, str]:
    whole = "".join(texts)
    unused = (char for char in map(chr, _PRIVATE_USE) if char not in whole)
    return next(unused), next(unused), next(unused)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
