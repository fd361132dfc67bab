import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.engine.runner import Runner, plan_passes


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100))
def test_passes_hold_every_prompt_once_within_bounds(lengths, prefill_tokens):
    passes = plan_passes(lengths, prefill_tokens)
    assert sorted(index for each in passes for index in each) == list(range(len(lengths)))
    for each in passes:
        inside = [lengths[index] for index in each]
        if len(each) > 1:
            assert len(each) * max(inside) <= prefill_tokens
            assert len(each) * max(inside) <= 2 * sum(inside)


def test_similar_lengths_are_read_together():
    assert plan_passes([9, 100, 10, 10, 95], 250) == [[0, 2, 3], [4, 1]]
    assert plan_passes([10, 10, 10], 20) == [[0, 1], [2]]
    assert plan_passes([10, 30, 10], 10) == [[0], [2], [1]]


@pytest.mark.parametrize("prefill_tokens", [3, 12, 1000])
def test_prefill_gives_each_prompt_its_own_logits_and_cache_row(toy, prefill_tokens):
    prompts = [[5], [1, 2, 3], [4, 4, 4, 4, 4, 4, 4], [6, 7]]
    prefixes = Runner(toy, prefill_tokens).prefill(prompts)
    for prompt, prefix in zip(prompts, prefixes, strict=True):
        assert torch.equal(prefix.logits_V, toy.logits_after(prompt))
        assert int(prefix.cache.lengths_B[prefix.row]) == len(prompt)
        assert prefix.cache.tokens_BL[prefix.row, : len(prompt)].tolist() == prompt


def test_decode_appends_one_token_to_every_row(toy):
    runner = Runner(toy, 100)
    cache = toy.new_cache(2, 9)
    for row, prefix in enumerate(runner.prefill([[1, 2, 3], [4]])):
        cache.copy_row(prefix.cache, prefix.row, [row])
    logits_BV = runner.decode(np.array([7, 8]), cache)
    assert torch.equal(logits_BV, torch.stack([toy.logits_after([1, 2, 3, 7]), toy.logits_after([4, 8])]))
    assert cache.lengths_B.tolist() == [4, 2]
