"""SentencePiece vocabularies (Llama 2, Mistral 7B), out of a `tokenizer.model` or a GGUF file, as a `tokenizers` BPE.

SentencePiece merges the pair whose piece has the highest score, the leftmost of equals; `tokenizers` merges the pair
that stands first in a list. So the list is every way to make a piece of two others, best pieces first. What is in no
piece is spelt in bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import unpack_from

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from octavo.errors import CheckpointError

SPACE = "▁"


class Kind(IntEnum):
    """Kinds of pieces, as SentencePiece and GGUF number them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One token."""

    text: str
    score: float = 0.0
    kind: Kind = Kind.NORMAL


@dataclass(frozen=True)
class Pieces:
    """A vocabulary: the piece with id i stands at place i."""

    pieces: Sequence[Piece]
    add_space_prefix: bool = True


def backend(vocabulary: Pieces, where: str) -> tokenizers.Tokenizer:
    """Build it. Raises CheckpointError that begins with `where`."""
    used = [(id_, piece) for id_, piece in enumerate(vocabulary.pieces) if piece.kind is not Kind.UNUSED]
    ids = {piece.text: id_ for id_, piece in used}
    unknown = next((piece.text for _, piece in used if piece.kind is Kind.UNKNOWN), None)
    model = models.BPE(ids, list(_merges(vocabulary.pieces)), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    if len(ids) < len(used):
        twice = next(piece.text for id_, piece in used if ids[piece.text] != id_)
        raise CheckpointError(f"{where}: the token {twice!r} occurs twice in the vocabulary")
    made = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if vocabulary.add_space_prefix else []
    made.normalizer = normalizers.Sequence([*prefix, spaces])
    strip = [decoders.Strip(" ", 1, 0)] if vocabulary.add_space_prefix else []
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    control = [piece.text for _, piece in used if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)]
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in control])
    typed = [piece.text for _, piece in used if piece.kind is Kind.USER_DEFINED]
    made.add_tokens([AddedToken(text, normalized=False, special=False) for text in typed])
    return made


def _merges(pieces: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    """Best pieces first; of one piece the shortest left part first."""
    scores = {piece.text: piece.score for piece in pieces if piece.kind is Kind.NORMAL}
    for text in sorted(scores, key=scores.__getitem__, reverse=True):
        for cut in range(1, len(text)):
            if text[:cut] in scores and text[cut:] in scores:
                yield text[:cut], text[cut:]


def read_model(data: bytes, where: str) -> Pieces:
    """Read a `tokenizer.model`. Raises CheckpointError for what is no SentencePiece BPE model."""
    pieces, kind, prefix = [], None, True
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):  # trainer_spec
                kind = dict(_fields(value)).get(3, 1)  # model_type
            elif number == 3 and isinstance(value, bytes):  # normalizer_spec
                prefix = bool(dict(_fields(value)).get(3, 1))  # add_dummy_prefix
    except (IndexError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{where}: not a SentencePiece model: {_HINT}") from error
    if kind != 2 or not pieces:
        raise CheckpointError(f"{where}: not a SentencePiece model of kind BPE: {_HINT}")
    return Pieces(pieces, prefix)


_HINT = "fetch the model's tokenizer.json, or save the tokenizer once with transformers (save_pretrained)"


def _piece(data: bytes) -> Piece:
    values = dict(_fields(data))
    text, score = values[1], values.get(2, b"\0\0\0\0")
    if not isinstance(text, bytes) or not isinstance(score, bytes):
        raise ValueError("piece")
    return Piece(text.decode("utf-8"), unpack_from("<f", score)[0], Kind(values.get(3, 1)))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message, one level deep. Raises IndexError or ValueError where it is damaged."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}.get(key & 7, -1), at)
            if not 0 <= length <= len(data) - at:
                raise ValueError(f"field at byte {at}")
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("number")
