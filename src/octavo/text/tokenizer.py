"""Text <-> ids: own vocabularies (byte-level BPE, trained from nothing), and those that open models bring.

Every string round-trips through an own vocabulary, since its alphabet is always all 256 bytes. Digits stand alone
(numbers keep their place values) and the rest is split as GPT-2 does: what llama.cpp calls the "smollm" pre-tokenizer.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from octavo.errors import CheckpointError, ConfigError, DataError
from octavo.text import prefix_space
from octavo.text.chat_template import ChatTemplate
from octavo.text.folder import Files, read_folder, write_folder
from octavo.text.tokens import CONTROL_TOKENS, END_OF_DOCUMENT, END_OF_TURN, TAG_TOKENS, SpecialTokens

_SPECIAL = re.compile("|".join(map(re.escape, CONTROL_TOKENS + TAG_TOKENS)))


class Tokenizer:
    """A `tokenizers.Tokenizer` together with its chat template and the tokens that end things."""

    def __init__(
        self, backend: tokenizers.Tokenizer, special: SpecialTokens, files: Files, gguf_pre: str | None = None
    ) -> None:
        self.special = special
        self.files = files
        self.gguf_pre = gguf_pre
        """Pre-tokenizer name of the GGUF file that it comes from, if any."""
        self._backend = backend
        # Text is text: control tokens that somebody typed are encoded as the characters they are.
        backend.encode_special_tokens = True
        self._continuing = prefix_space.without(backend)
        control = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        self.control_pattern = _any_of(control)
        """Matches the tokens that only the template may write."""
        ends = filter(None, map(backend.id_to_token, sorted(special.end_ids)))
        self.end_pattern = re.compile(rf"\s*(?:{_any_of(ends).pattern})")
        """Matches what ends a turn, with the white space before it."""
        default, tool_use = files.templates.get("default"), files.templates.get("tool_use")
        self._template = None if default is None else ChatTemplate(default, special.variables(), tool_use, files.origin)

    @property
    def template(self) -> ChatTemplate:
        """The chat template. Raises DataError for a base model, which has none."""
        if self._template is None:
            raise DataError(
                "this model has no chat template, so it continues text but holds no conversation: use its "
                "instruction-tuned version, or add a chat_template.jinja to its folder"
            )
        return self._template

    @property
    def end_of_document(self) -> str:
        """The token behind plain text."""
        return self.special.end_of_document

    @property
    def document_start(self) -> str | None:
        """The token before plain text, if there is one."""
        return self.special.bos if self.special.add_bos else None

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a completion."""
        return self.special.end_ids

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins texts, if there is one."""
        return None if self.special.bos is None else self.token_id(self.special.bos)

    @property
    def pad_id(self) -> int:
        """Id to fill rows with: the padding token, or where there is none the end of a document."""
        return self.token_id(self.special.pad or self.special.end_of_document)

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, special tokens and gaps included."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def begins_anew(self) -> bool:
        """Whether text behind a control token is encoded as the beginning of a text is."""
        return prefix_space.is_repeated(self._backend)

    def token_id(self, token: str) -> int:
        """Id of one token by its exact spelling. Raises CheckpointError where the vocabulary lacks it."""
        found = self._backend.token_to_id(token)
        if found is None:
            raise CheckpointError(f"tokenizer: no token {token!r} among its {self.vocab_size}")
        return found

    def same_vocabulary(self, other: Tokenizer) -> bool:
        """Whether every id means the same token in both."""
        return self._backend.get_vocab() == other._backend.get_vocab()

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: `<think>` and other added tokens are one id each, control tokens are never produced."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, on all threads. Raises DataError for text that UTF-8 cannot say."""
        return _encode(self._backend, texts)

    def encode_pieces(self, texts: Sequence[str], begins: Sequence[bool]) -> list[list[int]]:
        """`encode_batch` of pieces that may stand inside a longer text; `begins`: whether one stands at its start."""
        if self._continuing is None:
            return self.encode_batch(texts)
        first = iter(self.encode_batch([text for text, begin in zip(texts, begins, strict=True) if begin]))
        inner = iter(_encode(self._continuing, [t for t, begin in zip(texts, begins, strict=True) if not begin]))
        return [next(first) if begin else next(inner) for begin in begins]

    def decode(self, ids: Sequence[int], show_control: bool = False) -> str:
        """Text of ids, control tokens left out unless shown; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(ids, skip_special_tokens=not show_control)

    def with_template(self, source: str) -> Tokenizer:
        """The same vocabulary with another chat template, for base models. Raises CheckpointError."""
        files = dataclasses.replace(self.files, templates={"default": source}, origin=None)
        return Tokenizer(self._backend, self.special, files, self.gguf_pre)

    def definition(self) -> dict[str, Any]:
        """Vocabulary, merges, normalizer, pre-tokenizer, ... as tokenizer.json has them."""
        return json.loads(self._backend.to_str())

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a vocabulary of `vocab_size` tokens (fewer where the text has no more pairs to merge).

        The same texts give the same vocabulary. Raises ConfigError if `vocab_size` cannot hold the bytes and special
        tokens, DataError if there is no text at all.
        """
        smallest = 256 + len(CONTROL_TOKENS) + len(TAG_TOKENS)
        if vocab_size < smallest:
            raise ConfigError(
                f"tokenizer: vocab_size {vocab_size} is too small: 256 bytes and "
                f"{smallest - 256} special tokens need at least {smallest}"
            )
        backend = _byte_level(models.BPE())
        backend.train_from_iterator(
            _nonempty(texts),
            trainers.BpeTrainer(
                vocab_size=vocab_size,
                # First, so that padding is id 0. The trainer only keeps their places: their kinds are set below.
                special_tokens=[*CONTROL_TOKENS, *TAG_TOKENS],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        backend = _byte_level(backend.model)
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL_TOKENS])
        backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in TAG_TOKENS])
        ends = frozenset(id_ for id_, token in enumerate(CONTROL_TOKENS) if token in (END_OF_TURN, END_OF_DOCUMENT))
        special = SpecialTokens(END_OF_TURN, END_OF_DOCUMENT, ends, pad=END_OF_DOCUMENT)
        named = {"eos_token": END_OF_TURN, "pad_token": END_OF_DOCUMENT}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "clean_up_tokenization_spaces": False}
        return cls(backend, special, Files(config, named, {"default": ChatTemplate.default().source}))

    def save(self, folder: Path) -> None:
        """Write the files that `transformers.AutoTokenizer` opens, as they were read. Raises StorageError."""
        write_folder(folder, self.files, self._backend)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a Hugging Face folder. Raises CheckpointError naming the file that is missing or damaged."""
        return cls(*read_folder(folder))


def _byte_level(model: models.Model) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _encode(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    try:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    except TypeError as error:
        raise DataError("text holds a lone surrogate (half of a UTF-16 pair): remove it") from error


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _nonempty(texts: Iterable[str]) -> Iterator[str]:
    """The texts without special tokens, whose spelling is not to be learned. Raises DataError if nothing is left."""
    empty = True
    for text in texts:
        for piece in filter(None, _SPECIAL.split(text)):
            empty = False
            yield piece
    if empty:
        raise DataError("tokenizer: the corpus is empty: there is no text to learn a vocabulary from")
