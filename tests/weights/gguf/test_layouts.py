"""Layouts worked by hand, and back."""

import torch

from octavo.weights.gguf.layouts import join_up, pair_halves, pair_neighbours, split_up


def test_pairs_of_a_head():
    """Two heads of 4: rows (0, 2) and (1, 3) of each are pairs; as neighbours they lie side by side."""
    rows = torch.arange(8.0)
    assert pair_neighbours(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(pair_halves(pair_neighbours(rows, 2).flatten(), 2), rows)


def test_pairs_of_a_matrix():
    weight = torch.randn(12, 5)
    neighbours = pair_neighbours(weight, 3).flatten(0, 2)
    assert torch.equal(neighbours[:4], weight[[0, 2, 1, 3]])
    assert torch.equal(pair_halves(neighbours, 3), weight)


def test_up_projection():
    """Two heads, a key of 1 and a value of 2, rank 3: rows are k0, v0, v0, k1, v1, v1."""
    kv_b = torch.arange(18.0).view(6, 3)
    keys, values = split_up(kv_b, 2, 1)
    assert keys.tolist() == [[[0], [1], [2]], [[9], [10], [11]]]
    assert values.tolist() == [[[3, 4, 5], [6, 7, 8]], [[12, 13, 14], [15, 16, 17]]]
    assert torch.equal(join_up(keys, values), kv_b)
