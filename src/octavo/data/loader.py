"""The loader: an endless or counted stream of optimizer steps, which goes on exactly where it was.

Documents are shuffled anew each epoch, encoded as they are needed and packed into rows; a step is a number of rows,
cut into micro-batches. Nothing is ever prefetched past what the state says, so a checkpoint taken after any step
continues with the same batches bit for bit.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from octavo.data.batch import Batch
from octavo.data.packing import Piece, chop, collate, fill_rows
from octavo.data.sources import Source
from octavo.errors import CheckpointError, ConfigError, DataError
from octavo.text.messages import Document
from octavo.text.template import TokenDocument
from octavo.world import derive_seed

_ENCODED_AT_ONCE = 64
"""Documents that are encoded together, since tokenizing many at once uses all threads."""


class Ranks(Protocol):
    """What the loader needs to know of a `World`."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class _Placed:
    """A piece together with where it comes from: `place` in the order of `epoch`."""

    piece: Piece
    epoch: int
    place: int

    def __len__(self) -> int:
        return len(self.piece)


class PackedLoader:
    """An iterator over optimizer steps, each a list of micro-batches: this rank's part of the step.

    `encode` turns documents into ids and weights, for example `functools.partial(encode_documents, tokenizer)`.
    A step has tokens_per_step // tokens_per_row rows over all ranks, a micro-batch at most
    micro_batch_tokens // tokens_per_row. Ranks one after another hold the rows of the single-rank step in its order:
    each rank reads and packs all documents and keeps its share. Only the last step of the last epoch may have fewer
    rows, and then a rank may be given none (an empty list). `epochs` None: without end.
    Raises ConfigError for sizes that do not fit into each other, DataError for a source without anything to predict.
    """

    def __init__(
        self,
        source: Source,
        encode: Callable[[Sequence[Document]], Sequence[TokenDocument]],
        *,
        tokens_per_step: int,
        tokens_per_row: int,
        micro_batch_tokens: int,
        seed: int,
        epochs: int | None,
        world: Ranks,
    ) -> None:
        if tokens_per_row < 1:
            raise ConfigError(f"tokens_per_row must be at least 1, got {tokens_per_row}")
        if micro_batch_tokens < tokens_per_row:
            raise ConfigError(
                f"micro_batch_tokens ({micro_batch_tokens}) is less than tokens_per_row ({tokens_per_row})"
            )
        if tokens_per_step < tokens_per_row * world.size:
            raise ConfigError(
                f"tokens_per_step ({tokens_per_step}) is less than a row of tokens_per_row ({tokens_per_row}) "
                f"for each of {world.size} ranks"
            )
        if len(source) == 0:
            raise DataError("the training data has no documents")
        self._source = source
        self._encode = encode
        self._rows_per_step = tokens_per_step // tokens_per_row
        self._tokens_per_row = tokens_per_row
        self._rows_per_micro_batch = micro_batch_tokens // tokens_per_row
        self._seed = seed
        self._epochs = epochs
        self._world = world
        self._waiting: deque[_Placed] = deque()
        self._cursor = (0, 0, 0)  # epoch, place in its order, predictions of that document already read
        self._stream = self._read()

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        rows = fill_rows(self._waiting, self._stream, self._rows_per_step, self._tokens_per_row)
        if not rows:
            raise StopIteration
        first, last = (len(rows) * rank // self._world.size for rank in (self._world.rank, self._world.rank + 1))
        mine = [[placed.piece for placed in row] for row in rows[first:last]]
        size = self._rows_per_micro_batch
        return [collate(mine[start : start + size], self._tokens_per_row) for start in range(0, len(mine), size)]

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is after the last step: small, and JSON can say it."""
        return {
            "identity": self._identity,
            "cursor": list(self._cursor),
            "waiting": [[placed.epoch, placed.place, placed.piece.start] for placed in self._waiting],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the step after the one that `state` was taken at.

        Micro-batches, ranks, epochs and tokens a step may differ from the loader that wrote it. Raises CheckpointError
        if the data, the order or the rows would be others.
        """
        if state["identity"] != self._identity:
            changed = [key for key, value in self._identity.items() if state["identity"].get(key) != value]
            raise CheckpointError(
                f"the checkpoint was taken with another {', '.join(changed)} of the training data; "
                "undo that change, or start this stage anew"
            )
        self._waiting = deque(self._find(state["waiting"]))
        epoch, place, read = state["cursor"]
        self._cursor = (epoch, place, read)
        self._stream = self._read()

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "fingerprint": self._source.fingerprint(),
            "seed": self._seed,
            "tokens_per_row": self._tokens_per_row,
        }

    def _read(self) -> Iterator[_Placed]:
        """Pieces from the cursor on, which moves with them."""
        epoch, place, read = self._cursor
        while self._epochs is None or epoch < self._epochs:
            empty = place == 0 and read == 0
            for here, document in self._encoded(epoch, place):
                for piece in chop(document, self._tokens_per_row):
                    empty = False
                    if piece.start >= read:
                        self._cursor = (epoch, here, piece.stop)
                        yield _Placed(piece, epoch, here)
                read = 0
            if empty:
                raise DataError("the training data has nothing to predict: every document is one token long")
            epoch, place = epoch + 1, 0

    def _encoded(self, epoch: int, place: int) -> Iterator[tuple[int, TokenDocument]]:
        """Documents of one epoch from `place` on, each with its place."""
        places = iter(range(place, len(self._source)))
        order = self._order(epoch)
        while chunk := list(islice(places, _ENCODED_AT_ONCE)):
            documents = [self._source.document(int(order[place])) for place in chunk]
            yield from zip(chunk, self._encode(documents), strict=True)

    def _find(self, waiting: Sequence[Sequence[int]]) -> Iterator[_Placed]:
        """The pieces that `state_dict` wrote as (epoch, place, start)."""
        orders = {epoch: self._order(epoch) for epoch, _, _ in waiting}
        documents = [self._source.document(int(orders[epoch][place])) for epoch, place, _ in waiting]
        for (epoch, place, start), document in zip(waiting, self._encode(documents), strict=True):
            found = next(piece for piece in chop(document, self._tokens_per_row) if piece.start == start)
            yield _Placed(found, epoch, place)

    def _order(self, epoch: int) -> np.ndarray:
        seed = derive_seed(self._seed, "loader", "epoch", epoch)
        return np.random.Generator(np.random.PCG64(seed)).permutation(len(self._source))
