"""Packing: documents of any length become rows of equal length, and no prediction crosses documents.

A document of n tokens has n - 1 predictions: position i reads token i and predicts token i + 1. Predictions, not
tokens, are what rows hold, so a document that is chopped loses none.

Shapes: `B` rows, `T` = tokens_per_row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch

from octavo.data.batch import Batch
from octavo.text.template import TokenDocument

PADDING_ID = 0
"""Read and predicted by padding, with weight 0: any valid id does."""
_MOST_WAITING = 32
"""Pieces that fit into no open row and may wait for the next ones while shorter ones are looked for."""
_OPEN_ROWS = 16
"""Rows that `pack` fills at a time."""

PieceT = TypeVar("PieceT", bound=Sized)


@dataclass(frozen=True)
class Piece:
    """Predictions `start` to `stop` of a document; in its row it is a document by itself, positions from 0."""

    document: TokenDocument
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def chop(document: TokenDocument, tokens_per_row: int) -> Iterator[Piece]:
    """All predictions of a document in pieces of at most `tokens_per_row`; none for a document of one token."""
    predictions = len(document.ids) - 1
    for start in range(0, predictions, tokens_per_row):
        yield Piece(document, start, min(start + tokens_per_row, predictions))


def fill_rows(waiting: deque[PieceT], stream: Iterator[PieceT], rows: int, tokens_per_row: int) -> list[list[PieceT]]:
    """Best fit: each piece, first those `waiting`, then from `stream`, goes into the fullest row that still holds it.

    Ends when all rows are full, `stream` is, or too many pieces fitted nowhere; these are `waiting` afterwards.
    At most `rows` rows, none of them empty: no row at all if there was no piece. No piece is longer than a row.
    """
    filled: list[list[PieceT]] = [[] for _ in range(rows)]
    free = [(tokens_per_row, row) for row in range(rows)]  # rows that are not full: (tokens left, row), sorted
    misfits: list[PieceT] = []
    while free and len(misfits) < _MOST_WAITING:
        piece = waiting.popleft() if waiting else next(stream, None)
        if piece is None:
            break
        place = bisect_left(free, (len(piece), 0))
        if place == len(free):
            misfits.append(piece)
            continue
        left, row = free.pop(place)
        filled[row].append(piece)
        if left > len(piece):
            insort(free, (left - len(piece), row))
    waiting.extendleft(reversed(misfits))
    return [row for row in filled if row]


def pack(documents: Iterable[TokenDocument], tokens_per_row: int) -> Iterator[list[Piece]]:
    """Rows of pieces that hold every prediction of every document once; documents are read as rows are asked for."""
    waiting: deque[Piece] = deque()
    stream = (piece for document in documents for piece in chop(document, tokens_per_row))
    while rows := fill_rows(waiting, stream, _OPEN_ROWS, tokens_per_row):
        yield from rows


def collate(rows: Sequence[Sequence[Piece]], tokens_per_row: int) -> Batch:
    """One Batch [B, T] of packed rows. What is left of a row is padding: one more document, of weight 0."""
    inputs: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    positions: list[int] = []
    for row in rows:
        for piece in row:
            inputs += piece.document.ids[piece.start : piece.stop]
            targets += piece.document.ids[piece.start + 1 : piece.stop + 1]
            weights += piece.document.weights[piece.start + 1 : piece.stop + 1]
            positions += range(len(piece))
        padding = tokens_per_row - sum(map(len, row))
        inputs += [PADDING_ID] * padding
        targets += [PADDING_ID] * padding
        weights += [0.0] * padding
        positions += range(padding)
    shape = (len(rows), tokens_per_row)
    return Batch(
        inputs_BT=torch.tensor(inputs).view(shape),
        targets_BT=torch.tensor(targets).view(shape),
        weights_BT=torch.tensor(weights, dtype=torch.float32).view(shape),
        positions_BT=torch.tensor(positions).view(shape),
    )
