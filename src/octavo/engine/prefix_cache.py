"""Keys and values of prompts that were read before, in blocks of tokens, for requests that begin alike.

A block is known by all tokens up to its end: blocks form a tree, in which a prompt is a path from the root. The least
recently used leaf is dropped first. What is kept is right only as long as the model's weights stay as they are.

The memory of all blocks is one piece, of which the system gives pages when they are written. Blocks that are allocated
one by one, among everything else that comes and goes, leave holes: a server grew by an eighth in two minutes.

Shapes: `L` layers, `T` tokens of a block; in between, as the model's cache has them (model/cache.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from octavo.model.cache import Cache

BLOCK_TOKENS = 32
"""Fewer share more, and cost more small copies."""


@dataclass(eq=False)
class _Block:
    """`BLOCK_TOKENS` tokens behind those of `parent`."""

    parent: _Block | None = None
    ids: tuple[int, ...] = ()
    kinds: tuple[Tensor, ...] = ()
    """One tensor of each kind that attention remembers, over all layers: [L, ..., T, values]."""
    slot: int = -1
    """Whose memory that is."""
    children: dict[tuple[int, ...], _Block] = field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """The beginning of a prompt, as far as it is known."""

    blocks: tuple[_Block, ...] = ()

    @property
    def tokens(self) -> int:
        return len(self.blocks) * BLOCK_TOKENS

    @property
    def last(self) -> _Block | None:
        """Where the tree goes on; None: at its root."""
        return self.blocks[-1] if self.blocks else None

    def write(self, cache: Cache, row: int) -> None:
        """Put it at the beginning of a row, whose length it becomes."""
        cache.lengths_B[row] = self.tokens
        if not self.blocks:
            return
        for kind, parts in enumerate(zip(*(block.kinds for block in self.blocks), strict=True)):
            for layer, values in zip(cache.layers, torch.cat(parts, dim=-2), strict=True):
                layer[kind][row].narrow(-2, 0, self.tokens).copy_(values)


class _Arena:
    """Memory of `slots` blocks, shaped as `cache` has them."""

    def __init__(self, cache: Cache, capacity_bytes: int) -> None:
        layers = len(cache.layers)
        shapes = [(layers, *kind.shape[1:-2], BLOCK_TOKENS, kind.shape[-1]) for kind in cache.layers[0]]
        like = cache.layers[0][0]
        self.block_bytes = sum(map(math.prod, shapes)) * like.itemsize
        self.slots = capacity_bytes // self.block_bytes
        self._kinds = [like.new_empty((self.slots, *shape)) for shape in shapes]
        self._free = list(reversed(range(self.slots)))

    @property
    def is_full(self) -> bool:
        return not self._free

    def take(self) -> tuple[int, tuple[Tensor, ...]]:
        """A free slot and its memory."""
        slot = self._free.pop()
        return slot, tuple(kind[slot] for kind in self._kinds)

    def give_back(self, slot: int) -> None:
        self._free.append(slot)


class PrefixCache:
    """At most `capacity_bytes` of blocks; 0: none."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._arena: _Arena | None = None
        self._root = _Block()
        # Blocks by use, the latest last. A path is touched from its end to its beginning, so that the first block here
        # is always a leaf.
        self._by_use: OrderedDict[_Block, None] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether anything is kept at all."""
        return self._capacity_bytes > 0

    @property
    def used_bytes(self) -> int:
        """Of blocks that are kept."""
        return len(self._by_use) * self._arena.block_bytes if self._arena else 0

    def find(self, ids: Sequence[int]) -> Head:
        """The longest known beginning of a prompt, leaving at least one token to be read.

        It is to be written before anything else is kept: memory of blocks that are dropped is used again.
        """
        path = self._path(ids, (len(ids) - 1) // BLOCK_TOKENS)
        self._touch(path)
        return Head(tuple(path))

    def keep(self, ids: Sequence[int], cache: Cache, row: int) -> None:
        """Remember the whole blocks of `ids`, whose keys and values are at the beginning of the row."""
        if not self.enabled:
            return
        if self._arena is None:
            self._arena = _Arena(cache, self._capacity_bytes)
        count = min(len(ids) // BLOCK_TOKENS, self._arena.slots)
        path = self._path(ids, count)
        self._touch(path)
        while len(path) < count:
            if self._arena.is_full:  # the oldest is not of this path, which is shorter than all there is
                self._drop(next(iter(self._by_use)))
            start = len(path) * BLOCK_TOKENS
            slot, kinds = self._arena.take()
            for kind, memory in enumerate(kinds):
                parts = [layer[kind][row].narrow(-2, start, BLOCK_TOKENS) for layer in cache.layers]
                torch.stack(parts, out=memory)
            parent = path[-1] if path else self._root
            block = _Block(parent, tuple(ids[start : start + BLOCK_TOKENS]), kinds, slot)
            parent.children[block.ids] = block
            path.append(block)
            self._touch(path)

    def clear(self) -> None:
        """Forget everything."""
        self._root = _Block()
        self._by_use.clear()
        self._arena = None

    def _path(self, ids: Sequence[int], most: int) -> list[_Block]:
        path: list[_Block] = []
        block = self._root
        for start in range(0, most * BLOCK_TOKENS, BLOCK_TOKENS):
            found = block.children.get(tuple(ids[start : start + BLOCK_TOKENS]))
            if found is None:
                break
            path.append(found)
            block = found
        return path

    def _touch(self, path: Sequence[_Block]) -> None:
        for block in reversed(path):
            self._by_use[block] = None
            self._by_use.move_to_end(block)

    def _drop(self, block: _Block) -> None:
        assert not block.children, "a block that others stand behind was used before them"
        assert block.parent is not None
        assert self._arena is not None
        del block.parent.children[block.ids]
        del self._by_use[block]
        self._arena.give_back(block.slot)
