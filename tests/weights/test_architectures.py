"""Every architecture against `transformers`, which makes the weights: what it computes, reads and writes.

A folder saved by `transformers` is opened here; packed forward, prefill and decoding must give its logits; saved again
and opened by it, nothing may be missing, unexpected or different.
"""

import logging

import pytest
import torch
import transformers

from octavo.weights.hf import load_model, save_model

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.enable_propagation()  # so that caplog hears its warnings

COMMON = {
    "vocab_size": 280,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3}
QWEN3_MOE = EXPERTS | {"moe_intermediate_size": 12}
MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.0,
}
V2 = MLA | {"norm_topk_prob": False, "topk_method": "greedy", "n_group": 1, "topk_group": 1}
V3 = MLA | {"norm_topk_prob": True, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0}

TIED = {"tie_word_embeddings": True}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
DEEPSEEK_YARN = YARN | {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def new(**rope):
    """The newer spelling of the rotation."""
    return {"rope_parameters": {"rope_theta": 5000.0, **rope}}


def old(**rope):
    """The older spelling."""
    return {"rope_theta": 5000.0, "rope_scaling": {"type": rope.pop("rope_type"), **rope}}


CASES = {
    "llama": {
        "plain": {},
        "tied": TIED,
        "heads unshared": {"num_key_value_heads": None},
        "one kv head": {"num_key_value_heads": 1},
        "own head size": {"head_dim": 6},
        "norm epsilon": {"rms_norm_eps": 0.05},
        "theta": new(rope_type="default"),
        "linear": new(rope_type="linear", factor=4.0),
        "linear, old": old(rope_type="linear", factor=4.0),
        "llama3": new(**LLAMA3),
        "llama3, old": old(**LLAMA3),
        "yarn": new(**YARN),
        "yarn, old": old(**YARN),
        "yarn, attention factor": new(**YARN, attention_factor=1.3),
        "yarn, temperatures": new(**YARN, mscale=1.0, mscale_all_dim=0.5),
        "yarn, betas, not truncated": new(**YARN, beta_fast=16.0, beta_slow=0.2, truncate=False),
    },
    "mistral": {
        "plain": {"sliding_window": None},
        "window": {"sliding_window": 5},
        "window of one": {"sliding_window": 1},
        "window of all": {"sliding_window": 200},
        "window, own head size": {"sliding_window": 6, "head_dim": 10},
        "heads that do not divide the width": {"sliding_window": None, "num_attention_heads": 6, "head_dim": 6},
        "window, yarn, tied": {"sliding_window": 7, **TIED, **new(**YARN)},
    },
    "qwen2": {
        "plain": {},
        "tied": TIED,
        "window": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
        "window in no layer": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3},
        "yarn, old": old(**YARN),
    },
    "qwen3": {
        "plain": {"head_dim": 8},
        "own head size, tied": {"head_dim": 12, **TIED},
        "window": {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
        "yarn": {"head_dim": 8, **new(**YARN)},
    },
    "qwen3_moe": {
        "gates normalized": QWEN3_MOE | {"norm_topk_prob": True},
        "gates as they are": QWEN3_MOE | {"norm_topk_prob": False},
        "own head size, tied": QWEN3_MOE | {"head_dim": 6, **TIED},
        "leading dense layers": QWEN3_MOE | {"mlp_only_layers": [0, 1], "norm_topk_prob": True},
        "leading dense layers by a step": QWEN3_MOE | {"num_hidden_layers": 2, "decoder_sparse_step": 2},
        "all experts": QWEN3_MOE | {"num_experts_per_tok": 8},
        "one expert": QWEN3_MOE | {"num_experts_per_tok": 1, "norm_topk_prob": True},
        "window": QWEN3_MOE | {"use_sliding_window": True, "sliding_window": 5},
        "yarn": QWEN3_MOE | new(**YARN),
    },
    "olmoe": {
        "gates normalized": EXPERTS | {"norm_topk_prob": True},
        "gates as they are": EXPERTS | {"norm_topk_prob": False},
        "heads unshared": EXPERTS | {"num_key_value_heads": None},
        "tied": EXPERTS | TIED,
        "linear": EXPERTS | old(rope_type="linear", factor=2.0),
    },
    "deepseek_v2": {
        "plain": V2,
        "query rank": V2 | {"q_lora_rank": 10},
        "by group": V2 | {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
        "one group": V2 | {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
        "groups that greed ignores": V2 | {"n_group": 4, "topk_group": 2},
        "routed scale": V2 | {"routed_scaling_factor": 16.0},
        "two shared experts": V2 | {"n_shared_experts": 2},
        "no shared expert": V2 | {"n_shared_experts": 0},
        "no dense layer": V2 | {"first_k_dense_replace": 0},
        "two dense layers": V2 | {"first_k_dense_replace": 2},
        "values larger than queries": V2 | {"v_head_dim": 20},
        "tied": V2 | TIED,
        "yarn as in V2-Lite": V2 | old(**DEEPSEEK_YARN),
        "yarn, temperatures apart": V2 | new(**YARN, mscale=1.0, mscale_all_dim=0.5),
        "yarn without temperatures": V2 | new(**YARN),
        "yarn, attention factor": V2 | new(**DEEPSEEK_YARN, attention_factor=1.3),
    },
    "deepseek_v3": {
        "plain": V3,
        "gates as they are": V3 | {"norm_topk_prob": False, "routed_scaling_factor": 2.5},
        "query rank, groups, yarn": V3 | {"q_lora_rank": 10, "n_group": 4, "topk_group": 2, **old(**DEEPSEEK_YARN)},
        "no shared expert, no dense layer, tied": V3 | {"n_shared_experts": 0, "first_k_dense_replace": 0, **TIED},
    },
}
# Documents of two rows; some longer than the windows above, and than a run of queries.
LENGTHS = ((23, 1, 16), (9, 31))


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr("octavo.model.attention._RUN", 8)


@pytest.fixture(params=[(kind, name) for kind, cases in CASES.items() for name in cases], ids=": ".join)
def peer(request):
    """A model of `transformers` with nothing left as it is at the start."""
    kind, name = request.param
    config = transformers.AutoConfig.for_model(kind, **COMMON | CASES[kind][name])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for bias in (value for name, value in model.named_buffers() if name.endswith("e_score_correction_bias")):
            bias.normal_(0, 0.1)
    return model.eval()


def logits_of(peer, documents):
    """Each document alone, [T, V] each."""
    with torch.no_grad():
        return [peer(document[None], use_cache=False).logits[0] for document in documents]


def kept_type(config):
    """A Mistral without a window computes what a Llama does, and is one after saving."""
    plain = config.model_type == "mistral" and config.sliding_window is None
    return "llama" if plain and config.hidden_size % config.num_attention_heads == 0 else config.model_type


def assert_equal_logits(found, expected):
    assert expected.std() > 0.5, "the comparison would be weak"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


# torch says so of a shared expert of width 0.
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@torch.inference_mode()
def test_against_transformers(peer, tokenizer, tmp_path, caplog):
    peer.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs").eval()
    ids_BT = torch.randint(0, 280, (2, 40))
    documents = [part for row, lengths in zip(ids_BT, LENGTHS, strict=True) for part in row.split(lengths)]
    expected = logits_of(peer, documents)

    # Packed.
    positions_BT = torch.stack([torch.cat([torch.arange(length) for length in lengths]) for lengths in LENGTHS])
    assert_equal_logits(model.logits(model(ids_BT, positions_BT)).flatten(0, 1), torch.cat(expected))

    # Prompts of different lengths read together, in two pieces; then decoded one token at a time.
    prompts = [documents[0], documents[2], documents[4]]
    wanted = [expected[0], expected[2], expected[4]]
    given = [13, 9, 20]
    padded = torch.zeros(3, 20, dtype=torch.int64)
    for row, (prompt, length) in enumerate(zip(prompts, given, strict=True)):
        padded[row, :length] = prompt[:length]
    cache = model.new_cache(3, 40)
    read = torch.cat(
        [model.logits(model.forward_cached(piece, cache)) for piece in padded.split((12, 8), dim=1)], dim=1
    )
    cache.lengths_B.copy_(torch.tensor(given))
    for row, length in enumerate(given):
        assert_equal_logits(read[row, :length], wanted[row][:length])
    for step in range(7):
        tokens = torch.stack(
            [prompt[length + step : length + step + 1] for prompt, length in zip(prompts, given, strict=True)]
        )
        drawn = model.logits(model.forward_cached(tokens, cache))[:, 0]
        assert_equal_logits(drawn, torch.stack([w[length + step] for w, length in zip(wanted, given, strict=True)]))

    # Written, and read back by both.
    with caplog.at_level(logging.WARNING):
        save_model(tmp_path / "ours", model, tokenizer)
        again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    assert caplog.records == []
    assert again.config.model_type == kept_type(peer.config)
    for found, logits in zip(logits_of(again.eval(), documents), expected, strict=True):
        assert torch.equal(found, logits)
    loaded = load_model(tmp_path / "ours")
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
