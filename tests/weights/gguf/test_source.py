"""Tensors out of files as llama.cpp's converter writes them, against its own formulas."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from octavo.errors import CheckpointError
from octavo.weights.gguf.source import GGUFSource

LLAMA = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
LATENT = {
    f"deepseek2.{key}": value
    for key, value in {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.kv_lora_rank": 32,
        "attention.key_length_mla": 12,
        "attention.value_length_mla": 6,
        "rope.dimension_count": 4,
        "expert_feed_forward_length": 32,
        "expert_count": 3,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_gating_func": 2,
    }.items()
}
random = np.random.default_rng(0)
EMBEDDING = {"token_embd.weight": (random.normal(size=(5, 32)), "F32")}


def permuted(weights, heads):
    """As LlamaModel.permute of llama.cpp's converter says it."""
    shape = (heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return weights.reshape(shape).swapaxes(1, 2).reshape(weights.shape)


def read(path, name):
    with GGUFSource(path) as source:
        tensor = source.read(name)
        assert tuple(tensor.shape) == source.shape(name)
        assert name in source.names()
        return tensor.numpy()


def test_queries_and_keys_of_a_llama(written):
    q, k, bias = (random.normal(size=size).astype(np.float32) for size in ((32, 32), (16, 32), (32,)))
    tensors = EMBEDDING | {
        "blk.0.attn_q.weight": (permuted(q, 4), "F32"),
        "blk.0.attn_k.weight": (permuted(k, 2), "F32"),
        "blk.0.attn_q.bias": (permuted(bias, 4), "F32"),
        "blk.0.attn_v.weight": (k, "F32"),
    }
    path = written(LLAMA, tensors)
    assert np.array_equal(read(path, "model.layers.0.self_attn.q_proj.weight"), q)
    assert np.array_equal(read(path, "model.layers.0.self_attn.k_proj.weight"), k)
    assert np.array_equal(read(path, "model.layers.0.self_attn.q_proj.bias"), bias)
    assert np.array_equal(read(path, "model.layers.0.self_attn.v_proj.weight"), k)


def test_queries_of_others_lie_as_they_are(written):
    q = random.normal(size=(32, 32)).astype(np.float32)
    metadata = {key.replace("llama", "qwen2"): value for key, value in LLAMA.items()}
    path = written(metadata, EMBEDDING | {"blk.0.attn_q.weight": (q, "F32")}, "qwen2")
    assert np.array_equal(read(path, "model.layers.0.self_attn.q_proj.weight"), q)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_one_expert_is_read_alone(written, kind):
    stack = random.normal(size=(3, 4, 32)).astype(np.float32)
    path = written(LATENT, EMBEDDING | {"blk.0.ffn_up_exps.weight": (stack, kind)}, "deepseek2")
    whole = dequantize(quantize(stack, GGMLQuantizationType[kind]), GGMLQuantizationType[kind])
    for expert in range(3):
        found = read(path, f"model.layers.0.mlp.experts.{expert}.up_proj.weight")
        assert np.array_equal(found, whole[expert])


def test_gate_and_up_in_one_tensor(written):
    stack = random.normal(size=(3, 8, 32)).astype(np.float32)
    path = written(LATENT, EMBEDDING | {"blk.0.ffn_gate_up_exps.weight": (stack, "F32")}, "deepseek2")
    assert np.array_equal(read(path, "model.layers.0.mlp.experts.2.gate_proj.weight"), stack[2, :4])
    assert np.array_equal(read(path, "model.layers.0.mlp.experts.1.up_proj.weight"), stack[1, 4:])


@pytest.mark.parametrize("both", [False, True])
def test_keys_and_values_out_of_the_latent(written, both):
    """Older files hold kv_b, newer ones its two parts, and some all three."""
    kv_b = random.normal(size=(2 * (8 + 6), 32)).astype(np.float32)
    parts = kv_b.reshape(2, 14, 32)
    split = {
        "blk.0.attn_k_b.weight": (parts[:, :8].swapaxes(1, 2), "F32"),
        "blk.0.attn_v_b.weight": (parts[:, 8:], "F32"),
    }
    joined = {"blk.0.attn_kv_b.weight": (kv_b, "F32")}
    for number, tensors in enumerate((split, joined, split | joined)[both * 2 :]):
        path = written(LATENT, EMBEDDING | tensors, "deepseek2", f"{number}.gguf")
        assert np.array_equal(read(path, "model.layers.0.self_attn.kv_b_proj.weight"), kv_b)


def test_names(written):
    one = (np.ones(4), "F32")
    tensors = EMBEDDING | {
        name: one
        for name in (
            "output_norm.weight",
            "output.weight",
            "blk.0.exp_probs_b.bias",
            "blk.1.nextn.enorm.weight",
            "blk.1.nextn.eh_proj.weight",
            "blk.1.nextn.embed_tokens.weight",
            "blk.1.nextn.shared_head_head.weight",
            "blk.0.unheard_of.weight",
            "rope_freqs.weight",
        )
    }
    with GGUFSource(written(LATENT, tensors | {"rope_freqs.weight": (np.ones(16 // 2), "F32")}, "deepseek2")) as source:
        assert source.names() == {
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
            "model.layers.0.mlp.gate.e_score_correction_bias",
            "model.layers.1.enorm.weight",
            "model.layers.1.eh_proj.weight",
            "blk.0.unheard_of.weight",
        }


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"blk.0.attn_q.weight": (np.ones((30, 32)), "F32")},
            r"blk.0.attn_q.weight has 30 rows, which are not 4 heads",
        ),
        ({"blk.0.ffn_up_exps.weight": (np.ones((30, 32)), "F32")}, r"blk.0.ffn_up_exps.weight has shape \(30, 32\)"),
        ({"blk.0.ffn_up_exps.weight": (np.ones((5000, 1, 1)), "F32")}, r"expected matrices of at most 4,096 experts"),
        ({"blk.0.ffn_gate_up_exps.weight": (np.ones((2, 3, 1)), "F32")}, r"blk.0.ffn_gate_up_exps.weight has shape"),
        ({"blk.0.attn_k_b.weight": (np.ones((2, 4, 8)), "F32")}, r"tensor blk.0.attn_v_b.weight is missing"),
        (
            {
                "blk.0.attn_k_b.weight": (np.ones((2, 4, 8)), "F32"),
                "blk.0.attn_v_b.weight": (np.ones((2, 6, 5)), "F32"),
            },
            r"blk.0.attn_k_b.weight of shape \(2, 4, 8\) and blk.0.attn_v_b.weight of shape \(2, 6, 5\) are not keys",
        ),
    ],
)
def test_shapes_that_cannot_be(written, tensors, message):
    with pytest.raises(CheckpointError, match=rf"model.gguf: .*{message}"):
        GGUFSource(written(LLAMA, EMBEDDING | tensors))


def test_kinds_that_are_not_read_are_named(written):
    path = written(LLAMA, EMBEDDING | {"output_norm.weight": (np.ones((1, 256)), "TQ2_0")})
    with (
        GGUFSource(path) as source,
        pytest.raises(
            CheckpointError, match=r"tensor output_norm.weight is TQ2_0, which is not supported \(known: BF16, "
        ),
    ):
        source.shape("model.norm.weight")


def test_reading_does_not_touch_the_file(written):
    """What is read is a copy, which may be written to and outlives the file."""
    path = written(LLAMA, EMBEDDING)
    before = path.read_bytes()
    with GGUFSource(path) as source:
        tensor = source.read("model.embed_tokens.weight")
    tensor.zero_()
    assert torch.equal(tensor, torch.zeros(5, 32))
    assert path.read_bytes() == before
