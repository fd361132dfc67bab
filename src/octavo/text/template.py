"""The one owner of the text format: documents and conversations as ids with a loss mask, `<think>` and `<answer>`.

A conversation reads  <|system|>S<|user|>Q<|assistant|><think>R</think><answer>A</answer><|end|>  (the system message
is optional); a plain document ends with <|endoftext|>. The order of turns is a Jinja template that is saved with the
model, so that every other tool renders the same string. Open models bring templates of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.errors import DataError
from octavo.text.chat_template import PromptOptions
from octavo.text.conversation import Conversation, Segment, ends_in_reasoning
from octavo.text.messages import Document, Message
from octavo.text.tokens import ANSWER, END_ANSWER, END_THINK, TAG_TOKENS, THINK

if TYPE_CHECKING:
    from octavo.text.tokenizer import Tokenizer

_TAG = re.compile("(" + "|".join(TAG_TOKENS) + ")")
_TOKENS_OF_A_TAG = 16  # more than `<think>` and the white space behind it ever take


@dataclass(frozen=True)
class TokenDocument:
    """Token ids of one document; `weights[i]` is the loss weight of predicting `ids[i]` (0: context only)."""

    ids: list[int]
    weights: list[float]


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], options: PromptOptions | None = None) -> list[int]:
    """Ids up to where the assistant begins to write. Raises DataError if the last message is not for it."""
    if not messages or messages[-1].role not in ("user", "tool"):
        got = f"{messages[-1].role}" if messages else "no message"
        raise DataError(f"a prompt must end with a user message, got {got}")
    return _encode_segments(tokenizer, [_conversation(tokenizer, messages, options).prompt()])[0].ids


def opens_reasoning(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> bool:
    """Whether a prompt ends inside the reasoning, as some templates begin it for the model (DeepSeek-R1)."""
    return ends_in_reasoning(tokenizer.decode(prompt_ids[-_TOKENS_OF_A_TAG:]))


def encode_document(tokenizer: Tokenizer, document: Document, train_on_prompts: bool = False) -> TokenDocument:
    """Ids and loss weights of one document; see `encode_documents`."""
    return encode_documents(tokenizer, [document], train_on_prompts)[0]


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[Document], train_on_prompts: bool = False
) -> list[TokenDocument]:
    """Ids and loss weights of many documents, tokenized together.

    Plain text, with its closing <|endoftext|>, has weight 1 everywhere (but on the BOS of models that want one). A
    conversation has weight 1 on what the model must write itself (the assistant's turns with the token that ends them,
    except turns that are read without the reasoning that led to them), 0 elsewhere; with `train_on_prompts`, as
    pretraining wants it, 1 everywhere.
    Raises DataError for a document that is empty, or that leaves nothing to learn.
    """
    encoded = _encode_segments(tokenizer, [_document_segments(tokenizer, document) for document in documents])
    if tokenizer.document_start is not None:
        for given, document in zip(documents, encoded, strict=True):
            if given.text is not None:
                document.ids.insert(0, tokenizer.token_id(tokenizer.document_start))
                document.weights.insert(0, 0.0)
    if train_on_prompts:
        return [TokenDocument(document.ids, [1.0] * len(document.ids)) for document in encoded]
    for document in encoded:
        if 1.0 not in document.weights:
            raise DataError("a conversation without an assistant turn leaves nothing to learn: add one or drop it")
    return encoded


def _conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], options: PromptOptions | None = None
) -> Conversation:
    return Conversation(tokenizer.template, tokenizer.control_pattern, tokenizer.end_pattern, messages, options)


def _document_segments(tokenizer: Tokenizer, document: Document) -> list[Segment]:
    if (document.text is None) == (not document.messages):
        raise DataError("a document must have either text or messages")
    if document.text is None:
        return _conversation(tokenizer, document.messages).document()
    return [Segment(document.text, False, True), Segment(tokenizer.end_of_document, True, True)]


def _encode_segments(tokenizer: Tokenizer, segmented: Sequence[Sequence[Segment]]) -> list[TokenDocument]:
    texts, begins = [], []
    for segments in segmented:
        for place, segment in enumerate(segments):
            if not segment.control:
                texts.append(segment.text)
                begins.append(place == 0 or (segments[place - 1].control and tokenizer.begins_anew))
    encoded = iter(tokenizer.encode_pieces(texts, begins))
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


def parse_reply(text: str, reasoning_open: bool = False, tagged: bool = True) -> Reply:
    """Find reasoning and answer, as they stand between the tags (not stripped). Total; linear in the text.

    `reasoning_open`: the prompt had opened the reasoning already (`opens_reasoning`). Not `tagged`: read also models
    that know of no answer tags: the answer is then what follows the reasoning (stripped), all of the text if there is
    no reasoning, and None if the reasoning was cut off.
    """
    if reasoning_open or (not tagged and END_THINK in text.partition(THINK)[0]):
        text = THINK + text
    parts = _TAG.split(text)  # text, tag, text, tag, ..., text
    outside = parts[0] + parts[4] + parts[8] if tuple(parts[1::2]) == TAG_TOKENS else None
    reasoning, answer = _last_between(parts, THINK, END_THINK), _last_between(parts, ANSWER, END_ANSWER)
    if not tagged and answer is None and ANSWER not in text:
        _, opened, rest = text.rpartition(THINK)
        if opened and END_THINK not in rest:
            reasoning = rest
        else:
            answer = rest.rpartition(END_THINK)[2].strip()
    return Reply(reasoning, answer, well_formed=outside is not None and not outside.strip())


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
