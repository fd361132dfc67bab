"""More tokens for a vocabulary that cuts some language into bytes, such that other text is cut as before.

Byte-level BPE applies its merges in order of rank. New merges are appended, so within a word all old merges still come
first, and the new ones join what those have left. Whatever text has no such pair is cut exactly as before. Two things
keep other languages' words out of it: where the corpus is mainly of another script, words of ASCII alone are not
learned from; and no new token goes across a pair of old tokens that occurs in text to be kept.

The merges are learned by the `tokenizers` library on words written in its place of characters with old tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from octavo.errors import ConfigError, DataError
from octavo.text.tokenizer import Tokenizer

Merge = tuple[str, str]
FEWEST_USES = 5
"""A pair that the corpus has less often becomes no token."""
_FIRST_CHARACTER = 0x10000
"""Old token i is written as the character of this number + i: behind all that is white space."""
_REPEATS = 1024


@dataclass(frozen=True)
class Extension:
    """What is added to a vocabulary."""

    merges: tuple[Merge, ...]
    """To be appended to the old ones, in order."""
    pieces: Mapping[str, tuple[int, ...]]
    """New tokens in the order of their ids -> the old tokens that they are made of."""


def learn_extension(tokenizer: Tokenizer, texts: Iterable[str], keep: Iterable[str], new_tokens: int) -> Extension:
    """Learn `new_tokens` tokens from `texts`; text as in `keep` is cut as before.

    The same texts give the same tokens. Raises ConfigError for a vocabulary that is not byte-level BPE, DataError for
    too little text.
    """
    backend = _byte_level(tokenizer)
    kept_pairs = {pair for word in count_words(backend, keep) for pair in pairwise(cut(backend, word))}
    sequences: Counter[tuple[int, ...]] = Counter()
    for word, count in _own_words(count_words(backend, texts)).items():
        for part in _parted(cut(backend, word), kept_pairs):
            sequences[part] += count
    merges: list[Merge] = []
    pieces: dict[str, tuple[int, ...]] = {}
    known = backend.get_vocab(with_added_tokens=True)
    for left, right in _learn(sequences, new_tokens):
        ids = left + right
        token = _spelling(backend, ids)
        if token not in known:
            if len(pieces) == new_tokens:
                break
            pieces.setdefault(token, ids)
        merges.append((_spelling(backend, left), _spelling(backend, right)))
    if len(pieces) < new_tokens:
        raise DataError(
            f"the corpus has too little text for {new_tokens:,} new tokens: no pair is left that occurs at least "
            f"{FEWEST_USES} times after {len(pieces):,}; add text, or set new_tokens to {len(pieces):,} at most"
        )
    return Extension(tuple(merges), pieces)


def extended(tokenizer: Tokenizer, extension: Extension) -> Tokenizer:
    """The vocabulary with the new tokens; their ids follow its own. What it has is unchanged."""
    backend = _byte_level(tokenizer)
    added = {token.content: id_ for id_, token in backend.get_added_tokens_decoder().items()}
    # Added tokens get their ids by counting where the model's own vocabulary lacks them, and the count changes now.
    numbers = added | {token: tokenizer.vocab_size + place for place, token in enumerate(extension.pieces)}

    def extend(definition: dict[str, Any]) -> str:
        model = definition["model"]
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        model["vocab"] |= numbers
        model["merges"] += [" ".join(merge) if as_text else list(merge) for merge in extension.merges]
        return json.dumps(definition, ensure_ascii=False)

    files = tokenizer.files
    if files.definition is not None:
        files = replace(files, definition=extend(json.loads(files.definition)))
    larger = tokenizers.Tokenizer.from_str(extend(tokenizer.definition()))
    return Tokenizer(larger, tokenizer.special, files, tokenizer.gguf_pre)


def count_words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """What the pre-tokenizer cuts texts into, each with its number; bytes are written as in the vocabulary."""
    words: Counter[str] = Counter()
    for text in texts:
        normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    return words


def cut(backend: tokenizers.Tokenizer, word: str) -> tuple[int, ...]:
    """Ids of one word."""
    return tuple(token.id for token in backend.model.tokenize(word))


def _byte_level(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """A backend of its own. Raises ConfigError for other kinds."""
    definition = tokenizer.definition()
    model = definition["model"]
    steps = json.dumps(definition.get("pre_tokenizer"))
    if model["type"] != "BPE" or model.get("byte_fallback") or '"ByteLevel"' not in steps:
        kind = "SentencePiece" if model.get("byte_fallback") or model["type"] == "Unigram" else model["type"]
        raise ConfigError(
            f"this model's tokenizer is {kind}, and only byte-level BPE can be extended (SmolLM2, Qwen, Llama 3, OLMo, "
            "DeepSeek, models pressed here): choose such a model, or train this one with the tokens that it has"
        )
    return tokenizers.Tokenizer.from_str(json.dumps(definition))


def _own_words(words: Counter[str]) -> Counter[str]:
    """Words of the corpus's own script: all, or where most words hold letters beyond ASCII, only those."""
    foreign = Counter({word: count for word, count in words.items() if not _is_ascii(word)})
    letters = sum(count for word, count in words.items() if any(map(str.isalpha, word)))
    return foreign if 2 * foreign.total() > letters else words


def _is_ascii(word: str) -> bool:
    """Of a word in the byte-level alphabet, in which the bytes 0 to 32 and 127 are U+0100 to U+0121."""
    return all(character.isascii() or "\u0100" <= character <= "\u0121" for character in word)


def _parted(ids: tuple[int, ...], kept_pairs: set[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """The runs between which a kept pair stands; single tokens teach nothing."""
    start = 0
    for place, pair in enumerate(pairwise(ids), start=1):
        if pair in kept_pairs:
            yield ids[start:place]
            start = place
    yield ids[start:]


def _learn(sequences: Counter[tuple[int, ...]], new_tokens: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Merges of sequences of ids, the commonest first; somewhat more than asked for, as some make no new token."""
    words = {_written(ids): count for ids, count in sorted(sequences.items()) if len(ids) > 1}
    alphabet = {character for word in words for character in word}
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    size = len(alphabet) + new_tokens + new_tokens // 4 + 64
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=FEWEST_USES, show_progress=False)
    learner.train_from_iterator(_repeated(words), trainer)
    for merge in json.loads(learner.to_str())["model"]["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield _read(left), _read(right)


def _repeated(words: Mapping[str, int]) -> Iterator[str]:
    for word, count in words.items():
        for start in range(0, count, _REPEATS):
            yield f"{word} " * min(_REPEATS, count - start)


def _written(ids: Sequence[int]) -> str:
    return "".join(chr(_FIRST_CHARACTER + id_) for id_ in ids)


def _read(characters: str) -> tuple[int, ...]:
    return tuple(ord(character) - _FIRST_CHARACTER for character in characters)


def _spelling(backend: tokenizers.Tokenizer, ids: Sequence[int]) -> str:
    return "".join(backend.id_to_token(id_) or "" for id_ in ids)
