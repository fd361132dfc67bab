"""What attention remembers of each sequence: one row a sequence, one tensor a layer and kind.

MLA keeps `kv_rank + rope_dim` values a token and layer, [rows, max_tokens, kv_rank + rope_dim]; GQA keeps keys and
values, [rows, kv_heads, max_tokens, head_dim] each. Rows are kept apart by their own lengths: what lies behind a row's
length is never read, so stale values need no clearing and right-padded prompts need only their true length set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.model.config import MLAConfig, ModelConfig


@dataclass(frozen=True)
class Cache:
    """Keys and values of `rows` sequences. `layers[i]` holds the tensors of layer i, the row axis first."""

    layers: tuple[tuple[Tensor, ...], ...]
    lengths_B: Tensor
    """Tokens held by each row, int64; advanced by the model, set by the caller for padded prompts."""
    max_tokens: int

    @staticmethod
    def allocate(config: ModelConfig, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """An empty cache for `rows` sequences of at most `max_tokens` tokens."""
        attention = config.attention
        if isinstance(attention, MLAConfig):
            shapes = [(rows, max_tokens, attention.kv_rank + attention.rope_dim)]
        else:
            shapes = [(rows, attention.kv_heads, max_tokens, config.head_dim)] * 2
        layers = tuple(
            # Zeros, not garbage: a masked score of NaN would still be NaN.
            tuple(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)
            for _ in range(config.layers)
        )
        return Cache(layers, torch.zeros(rows, dtype=torch.int64, device=device), max_tokens)

    @property
    def rows(self) -> int:
        return len(self.lengths_B)

    def view(self, rows: int) -> Cache:
        """The first `rows` rows, sharing memory."""
        layers = tuple(tuple(tensor[:rows] for tensor in layer) for layer in self.layers)
        return Cache(layers, self.lengths_B[:rows], self.max_tokens)

    def copy_row(self, source: Cache, source_row: int, targets: Sequence[int]) -> None:
        """Copy one row of `source` (which may be this cache, or shorter) to each row in `targets`."""
        length = int(source.lengths_B[source_row])
        index = torch.as_tensor(targets, dtype=torch.int64, device=self.lengths_B.device)
        for ours, theirs in zip(self.layers, source.layers, strict=True):
            for target, tensor in zip(ours, theirs, strict=True):
                # The token axis is the last but one in every kind.
                target.narrow(-2, 0, length)[index] = tensor[source_row].narrow(-2, 0, length)
        self.lengths_B[index] = length

    def move_row(self, source_row: int, target_row: int) -> None:
        """Copy a row within this cache."""
        self.copy_row(self, source_row, [target_row])

    def truncate(self, row: int, length: int) -> None:
        """Forget what a row holds behind `length` tokens."""
        self.lengths_B[row] = length


@dataclass(frozen=True)
class CacheStep:
    """Where the T new tokens of each row go, and what they may see. Built once a forward pass, used by every layer.

    Cached positions `first` to `longest` - 1 are looked at, by some row: `hidden_BTL` covers these, and is 0 where
    token t of row b may look, -inf elsewhere.
    """

    rows_B1: Tensor
    slots_BT: Tensor
    longest: int
    hidden_BTL: Tensor
    first: int = 0
    """Above 0 only where a sliding window has passed by what lies before it in all rows."""

    @staticmethod
    def of(lengths_B: Tensor, tokens: int, dtype: torch.dtype, window: int | None = None) -> CacheStep:
        """Positions `lengths_B[b] ... lengths_B[b] + tokens - 1` of each row, each of which sees the last `window`."""
        device = lengths_B.device
        slots_BT = lengths_B[:, None] + torch.arange(tokens, device=device)
        longest = int(lengths_B.max()) + tokens
        first = 0 if window is None else max(int(lengths_B.min()) - window + 1, 0)
        cached_L = torch.arange(first, longest, device=device)
        unseen_BTL = cached_L > slots_BT[:, :, None]
        if window is not None:
            unseen_BTL |= cached_L <= slots_BT[:, :, None] - window
        hidden_BTL = torch.zeros(unseen_BTL.shape, dtype=dtype, device=device).masked_fill_(unseen_BTL, -torch.inf)
        return CacheStep(torch.arange(len(lengths_B), device=device)[:, None], slots_BT, longest, hidden_BTL, first)
