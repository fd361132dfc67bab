"""Cached prefill and decoding equal the full forward pass, whatever the order in which rows were filled."""

import pytest
import torch

from octavo.model.cache import CacheStep

ARCHITECTURES = {
    "mla": lambda sparse, dense: sparse(),
    "mla, query rank, yarn": lambda sparse, dense: sparse(
        attention={"q_rank": 10},
        max_positions=256,
        rope_scaling={"kind": "yarn", "factor": 4.0, "original_max_positions": 64},
    ),
    "gqa": lambda sparse, dense: dense(attention={"qkv_bias": True}),
    "gqa, head norms, one kv head": lambda sparse, dense: dense(attention={"qk_norm": "head", "kv_heads": 1}),
    "gqa, norm over all heads": lambda sparse, dense: dense(attention={"qk_norm": "projection"}),
    "gqa, window": lambda sparse, dense: dense(attention={"sliding_window": 4}),
    "gqa, window of one token": lambda sparse, dense: dense(attention={"sliding_window": 1}),
    "gqa, heads unshared": lambda sparse, dense: dense(attention={"kv_heads": 4}),
    "mla, groups of experts": lambda sparse, dense: sparse(moe={"groups": 4, "groups_per_token": 2}),
    "softmax experts in groups": lambda sparse, dense: sparse(
        moe={"scoring": "softmax", "groups": 2, "groups_per_token": 1, "shared_experts": 0, "normalize_gates": False}
    ),
    "sizes that fill no vector": lambda sparse, dense: sparse(
        width=20, ffn_width=52, attention={"kv_rank": 7, "nope_dim": 3, "v_dim": 5}, moe={"expert_width": 20}
    ),
    "sizes that fill several vectors": lambda sparse, dense: sparse(
        width=148,
        ffn_width=200,
        init_std=0.1,
        attention={"kv_rank": 70, "nope_dim": 40, "rope_dim": 36, "v_dim": 50, "q_rank": 33},
        moe={"expert_width": 68, "shared_experts": 2, "leading_dense_layers": 0},
    ),
}
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(params=ARCHITECTURES)
def model(request, sparse, dense, random_model):
    return random_model(ARCHITECTURES[request.param](sparse, dense))


@pytest.fixture(autouse=True)
def no_gradients(way):
    with torch.inference_mode():
        yield


def full(model, ids_T):
    """Hidden states of one sequence without a cache, [T, D]."""
    return model(ids_T[None], torch.arange(len(ids_T))[None])[0]


def decode(model, ids_BT, cache):
    """Hidden states of tokens appended one at a time, [B, T, D]."""
    return torch.cat([model.forward_cached(ids_BT[:, t : t + 1], cache) for t in range(ids_BT.shape[1])], dim=1)


def test_prefill_and_decoding(model):
    ids = torch.randint(0, 50, (3, 20))
    cache = model.new_cache(3, 20)
    found = torch.cat((model.forward_cached(ids[:, :8], cache), decode(model, ids[:, 8:], cache)), dim=1)
    expected = torch.stack([full(model, row) for row in ids])
    torch.testing.assert_close(found, expected, **CLOSE)
    assert cache.lengths_B.tolist() == [20, 20, 20]


def test_decoding_from_nothing(model):
    ids = torch.randint(0, 50, (2, 9))
    found = decode(model, ids, model.new_cache(2, 9))
    torch.testing.assert_close(found, torch.stack([full(model, row) for row in ids]), **CLOSE)


def test_chunked_prefill(model):
    ids = torch.randint(0, 50, (2, 19))
    cache = model.new_cache(2, 30)
    found = torch.cat([model.forward_cached(chunk, cache) for chunk in ids.split((7, 2, 10), dim=1)], dim=1)
    torch.testing.assert_close(found, torch.stack([full(model, row) for row in ids]), **CLOSE)


def test_ragged_prompts(model):
    """Prompts padded on the right; the caller sets the true lengths; rows then go on from different positions."""
    lengths, tokens = [3, 11, 1, 7], 6
    texts = [torch.randint(0, 50, (length + tokens,)) for length in lengths]
    prompts = torch.full((4, 11), 49)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        prompts[row, :length] = text[:length]
    cache = model.new_cache(4, 20)
    prefilled = model.forward_cached(prompts, cache)
    cache.lengths_B.copy_(torch.tensor(lengths))
    rest = torch.stack([text[length:] for text, length in zip(texts, lengths, strict=True)])
    decoded = torch.cat((decode(model, rest[:, :2], cache), model.forward_cached(rest[:, 2:], cache)), dim=1)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        expected = full(model, text)
        torch.testing.assert_close(prefilled[row, :length], expected[:length], **CLOSE)
        torch.testing.assert_close(decoded[row], expected[length:], **CLOSE)
    assert cache.lengths_B.tolist() == [length + tokens for length in lengths]


def test_stale_values_are_never_read(model):
    """What lies behind a row's length may be anything finite."""
    ids = torch.randint(0, 50, (2, 12))
    cache = model.new_cache(2, 30)
    for layer in cache.layers:
        for tensor in layer:
            tensor.fill_(1e6)
    found = torch.cat((model.forward_cached(ids[:, :5], cache), decode(model, ids[:, 5:], cache)), dim=1)
    torch.testing.assert_close(found, torch.stack([full(model, row) for row in ids]), **CLOSE)


def test_one_prompt_for_a_group_of_rows(model):
    """`copy_row` from a short cache: the prompt is computed once, the rows go different ways."""
    prompt, rest = torch.randint(0, 50, (1, 6)), torch.randint(0, 50, (3, 5))
    small = model.new_cache(1, 6)
    model.forward_cached(prompt, small)
    cache = model.new_cache(5, 16)
    model.forward_cached(torch.randint(0, 50, (5, 9)), cache)  # what the rows held before
    cache.copy_row(small, 0, [4, 0, 2])
    assert cache.lengths_B.tolist() == [6, 9, 6, 9, 6]
    order = torch.stack(
        (rest[1], torch.zeros(5, dtype=torch.int64), rest[2], torch.zeros(5, dtype=torch.int64), rest[0])
    )
    found = decode(model, order, cache)
    for row, own in ((4, 0), (0, 1), (2, 2)):
        expected = full(model, torch.cat((prompt[0], rest[own])))[6:]
        torch.testing.assert_close(found[row], expected, **CLOSE)


def test_moved_rows_and_views(model):
    """The last row takes the place of a finished one, and a view of the rows that are left goes on."""
    ids = torch.randint(0, 50, (3, 10))
    cache = model.new_cache(3, 12)
    model.forward_cached(ids[:, :6], cache)
    cache.move_row(2, 0)
    left = cache.view(2)
    assert (left.rows, left.max_tokens) == (2, 12)
    found = decode(model, ids[[2, 1], 6:], left)
    torch.testing.assert_close(found, torch.stack([full(model, ids[row]) for row in (2, 1)])[:, 6:], **CLOSE)
    assert cache.lengths_B.tolist() == [10, 10, 6], "the view shares memory, lengths included"
    assert torch.equal(left.layers[1][0], cache.layers[1][0][:2])


def test_truncated_rows_take_another_way(model):
    ids, other = torch.randint(0, 50, (2, 9)), torch.randint(0, 50, (2, 4))
    cache = model.new_cache(2, 12)
    model.forward_cached(ids, cache)
    cache.truncate(1, 5)
    assert cache.lengths_B.tolist() == [9, 5]
    found = decode(model, other[:, :3], cache)
    torch.testing.assert_close(found[0], full(model, torch.cat((ids[0], other[0, :3])))[9:], **CLOSE)
    torch.testing.assert_close(found[1], full(model, torch.cat((ids[1, :5], other[1, :3])))[5:], **CLOSE)


def test_absorbed_equals_expanded(sparse, random_model):
    """Attention on the latent itself is attention on the keys and values made from it."""
    attention = random_model(sparse()).layers[0].attention
    q_B1NH, latent_BLC = torch.randn(3, 1, 4, 12), torch.randn(3, 9, 16)
    hidden_B1L = torch.zeros(3, 1, 9).masked_fill_(torch.arange(9) > torch.tensor([8, 0, 4])[:, None, None], -torch.inf)
    absorbed = attention._attend_absorbed(q_B1NH, latent_BLC, hidden_B1L)
    expanded = attention._attend_expanded(q_B1NH, latent_BLC, hidden_B1L)
    assert absorbed.shape == expanded.shape == (3, 1, 4, 6)
    torch.testing.assert_close(absorbed, expanded, rtol=1e-4, atol=1e-5)


def test_the_latent_is_all_that_mla_caches(sparse, dense, random_model):
    model = random_model(sparse())
    assert [[tuple(tensor.shape) for tensor in layer] for layer in model.new_cache(2, 7).layers] == [
        [(2, 7, 12 + 4)]
    ] * 3
    model = random_model(dense())
    assert [[tuple(tensor.shape) for tensor in layer] for layer in model.new_cache(2, 7).layers] == [
        [(2, 2, 7, 4), (2, 2, 7, 4)]
    ] * 3


def test_where_new_tokens_go_and_what_they_see():
    step = CacheStep.of(torch.tensor([2, 0]), tokens=2, dtype=torch.float32)
    assert step.slots_BT.tolist() == [[2, 3], [0, 1]]
    assert step.longest == 4
    seen = (step.hidden_BTL == 0).int().tolist()
    assert seen == [[[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [1, 1, 0, 0]]]
    assert torch.isneginf(step.hidden_BTL[1, 0, 1:]).all()


def test_a_window_hides_what_lies_far_back():
    """What all rows have left behind is not even looked at."""
    step = CacheStep.of(torch.tensor([4, 6]), tokens=2, dtype=torch.float32, window=3)
    assert (step.first, step.longest) == (2, 8)
    seen = (step.hidden_BTL == 0).int().tolist()  # of cached positions 2 to 7
    assert seen == [[[1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]]]
    assert CacheStep.of(torch.tensor([2, 6]), tokens=1, dtype=torch.float32, window=3).first == 0


def test_a_full_cache_is_our_own_mistake(sparse, random_model):
    model = random_model(sparse())
    cache = model.new_cache(1, 4)
    model.forward_cached(torch.zeros(1, 4, dtype=torch.int64), cache)
    with pytest.raises(AssertionError, match="5 tokens do not fit in a cache of 4"):
        model.forward_cached(torch.zeros(1, 1, dtype=torch.int64), cache)
