"""Sliding windows: the runs of queries that long documents are cut into, against one mask over all of them.

Shapes: `S` documents, `L` tokens, `N` heads, `U` kv heads, `H` head size.
"""

import pytest
import torch

from octavo.model.attention import GQA


def slow(q_SLNH, k_SLUH, v_SLUH, window):
    """Softmax over every pair of tokens, those outside the window at -inf."""
    length, groups = q_SLNH.shape[1], q_SLNH.shape[2] // k_SLUH.shape[2]
    k_SLNH, v_SLNH = (x.repeat_interleave(groups, dim=2) for x in (k_SLUH, v_SLUH))
    scores_SNLL = torch.einsum("sqnh,sknh->snqk", q_SLNH, k_SLNH) / q_SLNH.shape[-1] ** 0.5
    back = torch.arange(length)[:, None] - torch.arange(length)
    scores_SNLL = scores_SNLL.masked_fill((back < 0) | (back >= window), -torch.inf)
    return torch.einsum("snqk,sknh->sqnh", scores_SNLL.softmax(-1), v_SLNH)


@pytest.mark.parametrize("run", [1, 4, 5, 100])
@pytest.mark.parametrize("window", [1, 3, 12, 13, 40])
def test_runs_of_queries(run, window, dense, monkeypatch):
    """Values and gradients; runs shorter and longer than the window, and than the document."""
    monkeypatch.setattr("octavo.model.attention._RUN", run)
    torch.manual_seed(0)
    config = dense(attention={"sliding_window": window})
    attention = GQA(config, config.attention)
    inputs = [torch.randn(2, 13, heads, 4, requires_grad=True) for heads in (4, 2, 2)]
    seed = torch.randn(2, 13, 4, 4)
    found, expected = attention._attend_causal(*inputs), slow(*inputs, window)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad((found * seed).sum(), inputs),
        torch.autograd.grad((expected * seed).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_a_window_no_mask_is_made(dense, monkeypatch):
    """And none is made for documents that fit into it."""
    monkeypatch.setattr(GQA, "_attend_window", lambda *_: pytest.fail("a mask was made"))
    for window, length in ((None, 30), (30, 30)):
        config = dense(attention={"sliding_window": window})
        attention = GQA(config, config.attention)
        attention._attend_causal(
            torch.randn(1, length, 4, 4), torch.randn(1, length, 2, 4), torch.randn(1, length, 2, 4)
        )
