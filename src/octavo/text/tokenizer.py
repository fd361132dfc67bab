"""Byte-level BPE: text <-> ids. Trained from nothing, saved in the layout that `transformers` and others open.

Every string round-trips, since the alphabet is always all 256 bytes. Digits stand alone (numbers keep their place
values) and the rest is split as GPT-2 does: what llama.cpp calls the "smollm" pre-tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from octavo.errors import CheckpointError, ConfigError, DataError
from octavo.rundir import write_atomic
from octavo.text.template import CONTROL_TOKENS, END_OF_DOCUMENT, END_OF_TURN, TAG_TOKENS, ChatTemplate

_SPECIAL = re.compile("|".join(map(re.escape, CONTROL_TOKENS + TAG_TOKENS)))


class Tokenizer:
    """A `tokenizers.Tokenizer` together with its chat template and the tokens that end things."""

    def __init__(
        self, backend: tokenizers.Tokenizer, template: ChatTemplate, end_of_document: str, end_of_turn: str
    ) -> None:
        self.template = template
        self.end_of_document = end_of_document
        self.end_of_turn = end_of_turn
        self._backend = backend
        # Text is text: control tokens that somebody typed are encoded as the characters they are.
        backend.encode_special_tokens = True
        control = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
        longest_first = sorted(control, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)))
        """Matches the tokens that only the template may write."""
        self.end_ids = frozenset({self.token_id(end_of_turn), self.token_id(end_of_document)})
        """Ids that end a completion."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

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
        """Ids of plain text: `<think>` and the other tags are one id each, control tokens are never produced."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, on all threads. Raises DataError for text that UTF-8 cannot say."""
        try:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        except TypeError as error:
            raise DataError("text holds a lone surrogate (half of a UTF-16 pair): remove it") from error

    def decode(self, ids: Sequence[int], show_control: bool = False) -> str:
        """Text of ids, control tokens left out unless shown; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(ids, skip_special_tokens=not show_control)

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
        return cls(backend, ChatTemplate.default(), END_OF_DOCUMENT, END_OF_TURN)

    def save(self, folder: Path) -> None:
        """Write the four files that `transformers.AutoTokenizer` opens. Raises StorageError."""
        folder.mkdir(parents=True, exist_ok=True)
        named = {"eos_token": self.end_of_turn, "pad_token": self.end_of_document}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "clean_up_tokenization_spaces": False}
        write_atomic(folder / "tokenizer.json", self._backend.to_str(pretty=True))
        write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
        write_atomic(folder / "special_tokens_map.json", json.dumps(named, indent=2) + "\n")
        write_atomic(folder / "chat_template.jinja", self.template.source)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what `save` wrote. Raises CheckpointError naming the file that is missing or damaged."""
        config_path = folder / "tokenizer_config.json"
        try:
            config = json.loads(_read(config_path))
            end_of_turn, end_of_document = config["eos_token"], config["pad_token"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{config_path}: expected JSON with eos_token and pad_token: {error!r}") from error
        backend_path = folder / "tokenizer.json"
        text = _read(backend_path)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise CheckpointError(f"{backend_path}: not a tokenizer: {error}") from error
        return cls(backend, ChatTemplate(_read(folder / "chat_template.jinja")), end_of_document, end_of_turn)


def _byte_level(model: models.Model) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _nonempty(texts: Iterable[str]) -> Iterator[str]:
    """The texts without special tokens, whose spelling is not to be learned. Raises DataError if nothing is left."""
    empty = True
    for text in texts:
        for piece in filter(None, _SPECIAL.split(text)):
            empty = False
            yield piece
    if empty:
        raise DataError("tokenizer: the corpus is empty: there is no text to learn a vocabulary from")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a model folder with a tokenizer") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
