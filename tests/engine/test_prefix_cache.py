import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from octavo.model.cache import Cache
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from octavo.model.transformer import Transformer
from octavo.tasks.types import CompletionRequest, SamplingParams

VOCABULARY = 97
SHARED = [(7 * n) % VOCABULARY for n in range(3 * BLOCK_TOKENS + 5)]


class Letters:
    """A tokenizer that ends nothing."""

    end_ids = frozenset()

    def decode(self, ids):
        return "".join(chr(0x100 + token) for token in ids)


def model_of(attention, moe=None) -> Transformer:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "width": 32, "layers": 2, "ffn_width": 32, "max_positions": 256}
    return Transformer(ModelConfig(**shape, attention=attention, moe=moe, init_std=0.3))


MODELS = {
    "gqa": (GQAConfig(heads=4, kv_heads=2), None),
    "mla": (
        MLAConfig(heads=2, nope_dim=16, rope_dim=8, v_dim=16, kv_rank=12),
        MoEConfig(experts=4, experts_per_token=2, expert_width=8),
    ),
}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    return model_of(*MODELS[request.param])


def asked(ids, seed=0, **options) -> CompletionRequest:
    return CompletionRequest(tuple(ids), SamplingParams(max_tokens=12, seed=seed), **options)


def test_completions_are_those_of_an_engine_that_keeps_nothing(model):
    requests = [asked([*SHARED, *range(n)], n, samples=1 + n % 2) for n in range(6)]
    plain = Engine(model, Letters(), EngineConfig(max_rows=4)).complete(requests)
    engine = Engine(model, Letters(), EngineConfig(max_rows=4, prefix_cache_bytes=2**24))
    for _ in range(2):
        kept = engine.complete(requests)
        assert [[sample.ids for sample in group] for group in kept] == [[s.ids for s in group] for group in plain]
    assert all(sample.cached_tokens == 3 * BLOCK_TOKENS for group in kept for sample in group)


def test_only_what_is_not_known_is_read(model, monkeypatch):
    engine = Engine(model, Letters(), EngineConfig(max_rows=4, prefix_cache_bytes=2**24))
    read = []
    original = type(model).forward_cached

    def counted(self, inputs_BT, cache):
        if inputs_BT.shape[1] > 1:
            read.append(tuple(inputs_BT.shape))
        return original(self, inputs_BT, cache)

    monkeypatch.setattr(type(model), "forward_cached", counted)
    # Four at once that begin alike: the first is read, the others wait for it.
    engine.complete([asked([*SHARED, n, n], n) for n in range(4)])
    assert read == [(1, len(SHARED) + 2), (3, 7)]
    read.clear()
    (group,) = engine.complete([asked([*SHARED, 50, 51])])
    assert read == [(1, 7)]
    # A conversation that goes on: what was written is known too.
    read.clear()
    whole = [*group[0].prompt_ids, *group[0].ids]
    engine.complete([asked([*whole, 9])])
    known = (len(whole) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert read == [(1, len(whole) + 1 - known)]


def block_cache(ids) -> Cache:
    """Keys that say which tokens they are of: the sum of all up to there."""
    values = torch.tensor(ids).cumsum(0).float()[None, None, :, None]
    return Cache(((values.clone(), -values),) * 2, torch.tensor([len(ids)]), len(ids))


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), max_size=25), st.integers(1, 8))
def test_it_is_a_bounded_tree_that_forgets_the_oldest(prompts, capacity_blocks):
    """Each prompt is a path of blocks that are all 0 or all 1; the model is a list of paths by use."""
    cost = 2 * 2 * BLOCK_TOKENS * 4
    cache = PrefixCache(capacity_blocks * cost)
    kept: list[tuple[int, ...]] = []  # paths of blocks, the latest used last
    for prompt in prompts:
        ids = [token for bit in prompt for token in [bit] * BLOCK_TOKENS]
        cache.keep(ids, block_cache(ids), 0)
        paths = [tuple(prompt[:end]) for end in range(1, min(len(prompt), capacity_blocks) + 1)]
        kept = [path for path in kept if path not in paths] + paths[::-1]
        kept = kept[-capacity_blocks:]
        assert cache.used_bytes == len(kept) * cost <= capacity_blocks * cost
        found = cache.find([*ids, 5])
        known = max((len(path) for path in paths if path in kept), default=0)
        assert found.tokens == known * BLOCK_TOKENS
        row = Cache(((torch.zeros(1, 1, 500, 1),) * 2,) * 2, torch.zeros(1, dtype=torch.int64), 500)
        found.write(row, 0)
        assert row.lengths_B.tolist() == [found.tokens]
    cache.clear()
    assert (cache.used_bytes, cache.find([0] * 100).tokens) == (0, 0)


def test_what_is_written_back_is_what_was_kept():
    ids = list(range(2 * BLOCK_TOKENS + 3))
    cache = PrefixCache(2**20)
    source = block_cache(ids)
    cache.keep(ids, source, 0)
    row = Cache(
        tuple((torch.zeros(2, 1, 90, 1), torch.zeros(2, 1, 90, 1)) for _ in range(2)),
        torch.zeros(2, dtype=torch.int64),
        90,
    )
    head = cache.find(ids)
    head.write(row, 1)
    assert row.lengths_B.tolist() == [0, 2 * BLOCK_TOKENS]
    for ours, theirs in zip(row.layers, source.layers, strict=True):
        for target, tensor in zip(ours, theirs, strict=True):
            assert torch.equal(target[1, :, : head.tokens], tensor[0, :, : head.tokens])
            assert not target[0].any()


def test_a_prompt_is_never_known_to_its_end():
    ids = [1] * (2 * BLOCK_TOKENS)
    cache = PrefixCache(2**20)
    cache.keep(ids, block_cache(ids), 0)
    assert cache.find(ids).tokens == BLOCK_TOKENS
    assert cache.find([*ids, 1]).tokens == 2 * BLOCK_TOKENS
