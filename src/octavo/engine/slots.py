"""The running rows: cache and numbers of every sequence that is being decoded, without gaps.

Rows 0 to B-1 are in use, so that decoding works on a view of the first B rows and gathers nothing; when a row is left,
the last one moves into it. What a step needs of all rows lies in arrays; Python objects are touched when a row comes or
goes.

Shapes: `B` rows in use, `L` tokens drawn by a row, `V` vocabulary.
"""

from collections.abc import Sequence as SequenceOf

import numpy as np

from octavo.engine.runner import Prefix
from octavo.engine.sampler import Draws, stream_key
from octavo.engine.sequence import Sequence
from octavo.model.cache import Cache
from octavo.model.transformer import Transformer

SMALLEST_CACHE_TOKENS = 64


class Slots:
    """At most `max_rows` rows of at most `max_tokens` tokens; the cache grows by doubling to what was needed so far."""

    def __init__(self, model: Transformer, max_rows: int, max_tokens: int, cache_tokens: int | None = None) -> None:
        self._model = model
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._cache_tokens = cache_tokens
        self._cache: Cache | None = None
        self._view: Cache | None = None
        self.sequences: list[Sequence] = []
        # Not touched before they are used: the system gives memory to these page by page.
        self._ids_BL = np.empty((max_rows, max_tokens), np.int64)
        self._logprobs_BL = np.empty((max_rows, max_tokens), np.float32)
        self._last_B = np.zeros(max_rows, np.int64)
        self._drawn_B = np.zeros(max_rows, np.int64)
        self._limit_B = np.zeros(max_rows, np.int64)
        self._temperature_B = np.zeros(max_rows, np.float32)
        self._top_p_B = np.zeros(max_rows, np.float64)
        self._top_k_B = np.zeros(max_rows, np.int64)
        self._key_B = np.zeros(max_rows, np.uint64)
        self._watched_B = np.zeros(max_rows, bool)

    @property
    def used(self) -> int:
        return len(self.sequences)

    @property
    def free(self) -> int:
        return self._max_rows - self.used

    @property
    def cache(self) -> Cache:
        """View of the rows in use."""
        assert self._cache is not None
        if self._view is None:
            self._view = self._cache.view(self.used)
        return self._view

    @property
    def last_B(self) -> np.ndarray:
        """Last token of each row in use."""
        return self._last_B[: self.used]

    def draws(self, first: int) -> Draws:
        """How rows `first` to the last are drawn."""
        rows = slice(first, self.used)
        return Draws(
            self._temperature_B[rows], self._top_p_B[rows], self._top_k_B[rows], self._key_B[rows], self._drawn_B[rows]
        )

    def fits(self, rows: int, tokens: int) -> bool:
        """Whether `rows` more, of `tokens` tokens each, can run beside those in use."""
        rows, tokens = self.used + rows, max(tokens, self._longest())
        return self._cache_tokens is None or rows == 1 or self._area(rows, tokens) <= self._cache_tokens

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` rows of `tokens` tokens; what is in use is kept."""
        known_rows, known_tokens = (self._cache.rows, self._cache.max_tokens) if self._cache else (0, 0)
        if rows <= known_rows and tokens <= known_tokens:
            return
        wider, longer = max(rows, known_rows), max(tokens, known_tokens)
        if self._cache_tokens is None or self._area(wider, longer) <= self._cache_tokens:
            rows, tokens = wider, longer
        else:  # what was needed before, and is no longer, makes room
            tokens = max(tokens, self._longest())
        rows, tokens = self._rounded(rows, tokens)
        grown = self._model.new_cache(rows, tokens)
        for row in range(self.used):
            assert self._cache is not None
            grown.copy_row(self._cache, row, [row])
        self._cache, self._view = grown, None

    def _longest(self) -> int:
        """Most tokens that a row in use may come to hold."""
        return max((len(each.group.request.prompt_ids) + each.group.limit for each in self.sequences), default=0)

    def _rounded(self, rows: int, tokens: int) -> tuple[int, int]:
        rows = min(_power_of_two(rows), self._max_rows)
        return rows, min(_power_of_two(max(tokens, SMALLEST_CACHE_TOKENS)), self._max_tokens)

    def _area(self, rows: int, tokens: int) -> int:
        rows, tokens = self._rounded(rows, tokens)
        return rows * tokens

    def enter(self, sequences: SequenceOf[Sequence], prefix: Prefix) -> None:
        """Give samples of one group the next rows, which begin as copies of its prompt."""
        assert self._cache is not None
        assert len(sequences) <= self.free
        first = self.used
        self.sequences.extend(sequences)
        self._view = None
        rows = slice(first, self.used)
        self._cache.copy_row(prefix.cache, prefix.row, list(range(first, self.used)))
        group = sequences[0].group
        params = group.request.params
        self._drawn_B[rows] = 0
        self._limit_B[rows] = group.limit
        self._temperature_B[rows] = params.temperature
        self._top_p_B[rows] = params.top_p
        self._top_k_B[rows] = params.top_k
        self._key_B[rows] = [stream_key(params.seed, sequence.sample) for sequence in sequences]
        self._watched_B[rows] = sequences[0].transcript is not None

    def record(self, first: int, ids_B: np.ndarray, logprobs_B: np.ndarray, end_V: np.ndarray) -> np.ndarray:
        """Note one token for each of rows `first` to the last; return which of these rows (bool) end with it."""
        rows = slice(first, self.used)
        drawn_B = self._drawn_B[rows]
        index_B = np.arange(first, self.used)
        self._ids_BL[index_B, drawn_B] = ids_B
        self._logprobs_BL[index_B, drawn_B] = logprobs_B
        self._last_B[rows] = ids_B
        drawn_B += 1
        return end_V[ids_B] | (drawn_B >= self._limit_B[rows])

    def watched(self, first: int) -> list[int]:
        """Those of rows `first` to the last whose text is read while it grows."""
        return (first + np.flatnonzero(self._watched_B[first : self.used])).tolist()

    def drawn(self, row: int) -> tuple[list[int], list[float]]:
        """Token ids and log-probs drawn so far by one row."""
        length = int(self._drawn_B[row])
        return self._ids_BL[row, :length].tolist(), self._logprobs_BL[row, :length].tolist()

    def leave(self, row: int) -> None:
        """Free one row: the last row takes its number."""
        assert self._cache is not None
        last = self.used - 1
        if row != last:
            length = int(self._drawn_B[last])
            self._ids_BL[row, :length] = self._ids_BL[last, :length]
            self._logprobs_BL[row, :length] = self._logprobs_BL[last, :length]
            for values_B in (
                self._last_B,
                self._drawn_B,
                self._limit_B,
                self._temperature_B,
                self._top_p_B,
                self._top_k_B,
                self._key_B,
                self._watched_B,
            ):
                values_B[row] = values_B[last]
            self._cache.move_row(last, row)
            self.sequences[row] = self.sequences[last]
        self.sequences.pop()
        self._view = None

    def clear(self) -> None:
        """Free all rows, and the memory of the cache."""
        self.sequences.clear()
        self._cache = self._view = None


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
