"""Logits and gradients against `transformers`' models with the same random weights."""

import logging

import pytest
import torch
import transformers
from torch.nn import functional as F

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.enable_propagation()  # so that caplog hears its warnings

YARN = {"kind": "yarn", "factor": 4.0, "original_max_positions": 64, "mscale": 0.8, "mscale_all_dim": 1.2}
SPARSE = {
    "plain": {},
    "query rank": {"attention": {"q_rank": 10}},
    "values larger than queries": {"attention": {"v_dim": 20}},
    "groups": {"moe": {"groups": 4, "groups_per_token": 2}},
    "routed scale 1": {"moe": {"routed_scale": 1.0}},
    "routed scale 2.5": {"moe": {"routed_scale": 2.5}},
    "gates not normalized": {"moe": {"normalize_gates": False}},
    "no dense layer": {"moe": {"leading_dense_layers": 0}},
    "two dense layers": {"moe": {"leading_dense_layers": 2}},
    "two shared experts": {"moe": {"shared_experts": 2}},
    "no shared expert": {"moe": {"shared_experts": 0}},
    "all experts": {"moe": {"experts_per_token": 8}},
    "yarn": {"max_positions": 256, "rope_scaling": YARN},
    "yarn, query rank, groups": {
        "attention": {"q_rank": 10},
        "moe": {"groups": 2, "groups_per_token": 1},
        "max_positions": 256,
        "rope_scaling": YARN,
    },
    "tied": {"tie_embeddings": True},
    "norm epsilon": {"norm_eps": 0.05, "attention": {"q_rank": 10}},
    "theta": {"rope_theta": 500.0},
}
DENSE = {
    "llama": {},
    "llama, own head size": {"attention": {"head_dim": 10}},
    "llama, heads unshared": {"attention": {"kv_heads": 4}},
    "llama, norm epsilon": {"norm_eps": 0.05},
    "llama, yarn": {"max_positions": 256, "rope_scaling": YARN},
    "qwen2": {"attention": {"qkv_bias": True}, "tie_embeddings": True},
    "qwen2, own head size": {"attention": {"qkv_bias": True, "head_dim": 6}},
    "qwen3": {"attention": {"qk_norm": "head", "head_dim": 10}},
    "qwen3, one kv head, tied": {
        "attention": {"qk_norm": "head", "kv_heads": 1},
        "tie_embeddings": True,
        "norm_eps": 0.01,
    },
}
MOE = {"scoring": "softmax", "experts": 8, "experts_per_token": 3, "expert_width": 12, "shared_experts": 0}
DENSE |= {
    "llama, linear": {"rope_scaling": {"kind": "linear", "factor": 4.0}},
    "mistral, window": {"attention": {"sliding_window": 5}},
    "qwen3_moe, gates not normalized": {"attention": {"qk_norm": "head"}, "moe": MOE | {"normalize_gates": False}},
    "qwen3_moe, window": {"attention": {"qk_norm": "head", "sliding_window": 5}, "moe": MOE},
    "olmoe": {"attention": {"qk_norm": "projection"}, "moe": MOE | {"leading_dense_layers": 0}},
}
V2 = {"scoring": "softmax", "normalize_gates": False}
SPARSE |= {
    "deepseek_v2": {"moe": V2},
    "deepseek_v2, groups": {"moe": V2 | {"groups": 4, "groups_per_token": 2}},
    "deepseek_v2, groups of one expert": {"moe": V2 | {"groups": 8, "groups_per_token": 4}},
}
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
}


def open_in_transformers(folder):
    with torch.random.fork_rng():
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def peer_gradients(peer):
    """Gradients by the names of the released files, which hold each expert apart."""
    found = {}
    for name, parameter in peer.named_parameters():
        stem = name.rpartition(".")[0]
        if name.endswith("experts.gate_up_proj"):
            for e, gate_up in enumerate(parameter.grad):
                gate, up = gate_up.chunk(2)
                found |= {f"{stem}.{e}.gate_proj.weight": gate, f"{stem}.{e}.up_proj.weight": up}
        elif name.endswith("experts.down_proj"):
            found |= {f"{stem}.{e}.down_proj.weight": down for e, down in enumerate(parameter.grad)}
        else:
            found[name] = parameter.grad
    return found


def compare(model, peer, gradients_of):
    ids = torch.randint(0, 50, (3, 21))
    positions = torch.arange(21).expand(3, 21)
    logits, expected = model.logits(model(ids, positions)), peer(ids).logits
    assert expected.abs().max() > 1, "the comparison would be weak"
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)

    for found in (logits, expected):
        F.cross_entropy(found[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    ours, _ = gradients_of(model)
    theirs = peer_gradients(peer)
    ours = {name: value for name, value in ours.items() if not name.endswith("e_score_correction_bias")}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


# torch says so of a shared expert of width 0.
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", SPARSE)
def test_sparse(name, sparse, random_model, write_for_transformers, gradients_of, caplog):
    model = random_model(sparse(**SPARSE[name]))
    with caplog.at_level(logging.WARNING):
        peer = open_in_transformers(write_for_transformers(model))
    assert type(peer).__name__ == CLASSES.get(name.split(",")[0], "DeepseekV3ForCausalLM")
    assert caplog.records == []
    compare(model, peer, gradients_of)


@pytest.mark.parametrize("name", DENSE)
def test_dense(name, dense, random_model, write_for_transformers, gradients_of, caplog):
    model = random_model(dense(**DENSE[name]))
    with caplog.at_level(logging.WARNING):
        peer = open_in_transformers(write_for_transformers(model))
    assert type(peer).__name__ == CLASSES[name.split(",")[0]]
    assert caplog.records == []
    compare(model, peer, gradients_of)


def test_latents_keep_their_own_epsilon(sparse, random_model, write_for_transformers):
    """As in the released models: norm_eps is for the residual stream, the latents are normalized with 1e-6."""
    model = random_model(sparse(norm_eps=0.05, attention={"q_rank": 10}))
    peer = open_in_transformers(write_for_transformers(model))
    attention, theirs = model.layers[1].attention, peer.model.layers[1].self_attn
    assert attention.q[1].eps == theirs.q_a_layernorm.variance_epsilon == 1e-6
    assert attention.kv_norm.eps == theirs.kv_a_layernorm.variance_epsilon == 1e-6
    assert model.layers[1].ffn_norm.eps == 0.05


def test_the_correction_bias_after_updates(sparse, random_model, write_for_transformers):
    """A bias that training moved changes both models in the same way."""
    model = random_model(sparse())
    ids, positions = torch.randint(0, 50, (2, 21)), torch.arange(21).expand(2, 21)
    before = model.logits(model(ids, positions)).detach()
    model.train()
    for _ in range(20):
        model(ids, positions)
        for router in model.routers():
            router.update_bias(router.take_load(), rate=0.02)
    model.eval()
    peer = open_in_transformers(write_for_transformers(model))
    after = model.logits(model(ids, positions))
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(after, peer(ids).logits, rtol=0, atol=1e-4)
