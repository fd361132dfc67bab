"""What training would see of some examples: rendered by the model's template, with what is learned marked."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from octavo.data.examples import Example
from octavo.text.template import TokenDocument, encode_documents, encode_prompt
from octavo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import Console

OPENING, CLOSING = "⟦", "⟧"
"""Around what is learned, where there are no colours."""
_LONGEST_PART = 1200


@dataclass(frozen=True)
class Part:
    """A run of text, and whether the model learns to write it."""

    text: str
    learned: bool


@dataclass(frozen=True)
class Rendered:
    """One example as the model reads it, control tokens included. `answer` is what samples are checked against."""

    where: str
    tokens: int
    parts: tuple[Part, ...]
    answer: str | None


@dataclass(frozen=True)
class Preview:
    """Three examples (the shortest, the middle one, the longest), and figures of all of them."""

    shown: tuple[Rendered, ...]
    examples: int
    shortest_tokens: int
    median_tokens: float
    longest_tokens: int
    context_tokens: int
    truncated: int
    """Examples that do not fit into the context."""
    lost_reasoning: int
    """Examples whose reasoning the chat template leaves out."""
    languages: Counter[str]
    """Questions by language; empty if nobody was asked."""


def preview_examples(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    context_tokens: int,
    learn_answers: bool = False,
    language_of: Callable[[str], str] | None = None,
) -> Preview:
    """Encode all examples as training does. There must be at least one.

    Worked answers are learned; with `learn_answers` bare gold answers too, as fine-tuning without worked ones would.
    `language_of` names the language of a text. Raises DataError for what the template refuses.
    """
    encoded = _encode(tokenizer, examples, learn_answers)
    lengths = [len(document.ids) for document in encoded]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    chosen = dict.fromkeys((order[0], order[len(order) // 2], order[-1]))
    return Preview(
        shown=tuple(_render(tokenizer, examples[index], encoded[index]) for index in chosen),
        examples=len(examples),
        shortest_tokens=min(lengths),
        median_tokens=statistics.median(lengths),
        longest_tokens=max(lengths),
        context_tokens=context_tokens,
        truncated=sum(length > context_tokens for length in lengths),
        lost_reasoning=sum(
            _loses_reasoning(tokenizer, example, document) for example, document in zip(examples, encoded, strict=True)
        ),
        languages=Counter(language_of(example.messages[-1].content) for example in examples)
        if language_of
        else Counter(),
    )


def print_preview(preview: Preview, console: Console) -> None:
    """On a terminal what is learned is coloured; elsewhere it stands between ⟦ and ⟧."""
    from rich.text import Text

    for rendered in preview.shown:
        text = Text()
        for part in rendered.parts:
            shown = _shorten(part.text)
            if part.learned and not console.is_terminal:
                shown = f"{OPENING}{shown}{CLOSING}"
            text.append(shown, style="bold green" if part.learned else "dim")
        console.print(Text(f"--- {rendered.where}, {rendered.tokens} tokens", style="bold"))
        console.print(text, soft_wrap=True)
        if rendered.answer is not None:
            console.print(Text(f"--- checked against: {_shorten(rendered.answer)}"), soft_wrap=True)
    console.print(Text("\n".join(_figures(preview))), soft_wrap=True)


def _figures(preview: Preview) -> list[str]:
    lines = [
        f"{preview.examples} examples of {preview.shortest_tokens} to {preview.longest_tokens} tokens, "
        f"median {preview.median_tokens:g}; {preview.truncated} longer than the context of {preview.context_tokens}"
    ]
    if preview.lost_reasoning:
        lines.append(
            f"warning: the model's chat template leaves out the reasoning of {preview.lost_reasoning} examples"
        )
    if preview.languages:
        lines.append("languages: " + ", ".join(f"{name} {count}" for name, count in preview.languages.most_common()))
    return lines


def _encode(tokenizer: Tokenizer, examples: Sequence[Example], learn_answers: bool) -> list[TokenDocument]:
    documents = [example.document() if learn_answers or example.reply else None for example in examples]
    learned = iter(encode_documents(tokenizer, [document for document in documents if document]))
    return [
        _prompt(tokenizer, example) if document is None else next(learned)
        for example, document in zip(examples, documents, strict=True)
    ]


def _prompt(tokenizer: Tokenizer, example: Example) -> TokenDocument:
    ids = encode_prompt(tokenizer, example.messages)
    return TokenDocument(ids, [0.0] * len(ids))


def _render(tokenizer: Tokenizer, example: Example, document: TokenDocument) -> Rendered:
    parts = []
    for learned, run in groupby(zip(document.ids, document.weights, strict=True), key=lambda pair: pair[1] > 0):
        parts.append(Part(tokenizer.decode([token for token, _ in run], show_control=True), learned))
    return Rendered(example.where, len(document.ids), tuple(parts), example.answer)


def _loses_reasoning(tokenizer: Tokenizer, example: Example, document: TokenDocument) -> bool:
    reasoning = (example.reply and example.reply.reasoning) or ""
    return reasoning.strip() not in tokenizer.decode(document.ids)


def _shorten(text: str) -> str:
    left_out = len(text) - _LONGEST_PART
    if left_out <= 0:
        return text
    half = _LONGEST_PART // 2
    return f"{text[:half]} [... {left_out} characters ...] {text[-half:]}"
