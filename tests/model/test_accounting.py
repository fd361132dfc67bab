"""Costs against counted parameters, the published numbers of DeepSeek-V3, and counted FLOPs."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.hf_config import from_hugging_face, to_hugging_face

# config.json of deepseek-ai/DeepSeek-V3, what concerns shapes.
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "topk_method": "noaux_tc",
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "hidden_act": "silu",
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "tie_word_embeddings": False,
    "attention_bias": False,
}


@st.composite
def configs(draw):
    def size(low, high):
        return draw(st.integers(low, high))

    values = {
        "vocab_size": size(5, 40),
        "width": 4 * size(1, 6),
        "layers": size(1, 3),
        "ffn_width": size(1, 30),
        "tie_embeddings": draw(st.booleans()),
        "mtp_layers": size(0, 2),
    }
    if draw(st.booleans()):
        values["attention"] = {
            "kind": "mla",
            "heads": size(1, 4),
            "kv_rank": size(1, 9),
            "q_rank": draw(st.none() | st.integers(1, 9)),
            "nope_dim": size(1, 9),
            "rope_dim": 2 * size(1, 4),
            "v_dim": size(1, 9),
        }
    else:
        kv_heads = size(1, 3)
        values["attention"] = {
            "kind": "gqa",
            "heads": kv_heads * size(1, 3),
            "kv_heads": kv_heads,
            "head_dim": 2 * size(1, 4),
            "qkv_bias": draw(st.booleans()),
            "qk_norm": draw(st.sampled_from([None, "head", "projection"])),
            "sliding_window": draw(st.none() | st.integers(1, 9)),
        }
    if draw(st.booleans()):
        experts = size(1, 8)
        values["moe"] = {
            "experts": experts,
            "experts_per_token": size(1, experts),
            "expert_width": 4 * size(1, 4),
            "shared_experts": size(0, 2),
            "leading_dense_layers": size(0, values["layers"]),
            "scoring": draw(st.sampled_from(["sigmoid", "softmax"])),
        }
    return ModelConfig.parse(values)


@settings(max_examples=30, deadline=None)
@given(configs())
def test_counts_equal_built_models(config):
    """Parameters of the built model, those of one token, and the bytes of an allocated cache."""
    with torch.device("meta"):
        model = Transformer(config)
    accounting = Accounting.of(config)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    mtp = sum(size for name, size in sizes.items() if name.startswith("mtp."))
    total = sum(sizes.values()) - mtp
    assert (accounting.total_parameters, accounting.mtp_parameters) == (total, mtp)

    # What one token leaves out: the experts that it does not choose, and all rows but one of the input embedding.
    moe = config.moe
    experts = sum(size for name, size in sizes.items() if name.startswith("layers.") and ".experts." in name)
    left_out = experts * (moe.experts - moe.experts_per_token) // moe.experts if moe else 0
    if not config.tie_embeddings:
        left_out += (config.vocab_size - 1) * config.width
    assert accounting.active_parameters == total - left_out

    with torch.device("meta"):
        cache = model.new_cache(2, 3)
    held = sum(tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in layer)
    assert held == 2 * 3 * accounting.cache_bytes_per_token(4)


def test_deepseek_v3():
    """Published: 671B parameters, 37B of them active, 14B more for MTP; 576 cached values a token and layer."""
    accounting = Accounting.of(from_hugging_face(DEEPSEEK_V3, "config.json"))
    assert accounting.total_parameters == 671_026_404_352  # of all tensors of the released files but MTP's and scales
    assert 36.5e9 < accounting.active_parameters < 37.6e9
    # The released files hold 685B with MTP, whose shared embedding and head they repeat.
    table = 129280 * 7168
    assert (accounting.total_parameters + accounting.mtp_parameters + 2 * table) / 1e9 == pytest.approx(684.5, abs=0.1)
    assert accounting.cached_values_per_token == 61 * 576
    # Without latents it would be keys of 192 and values of 128 for 128 heads.
    assert 61 * 128 * (192 + 128) == 61 * 40960


# Total and active parameters of published config.json, what concerns shapes. Totals are those of the released tensors
# (for Mistral and Llama also what their authors and tools print to the last digit).
PUBLISHED = {
    "DeepSeek-V2-Lite": (
        DEEPSEEK_V3
        | {
            "model_type": "deepseek_v2",
            "vocab_size": 102400,
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_shared_experts": 2,
            "n_routed_experts": 64,
            "routed_scaling_factor": 1.0,
            "q_lora_rank": None,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "norm_topk_prob": False,
            "scoring_func": "softmax",
        },
        15_706_484_224,
        (2.2e9, 2.5e9),  # "2.4B"
    ),
    "DeepSeek-V2": (
        DEEPSEEK_V3
        | {
            "model_type": "deepseek_v2",
            "vocab_size": 102400,
            "hidden_size": 5120,
            "intermediate_size": 12288,
            "moe_intermediate_size": 1536,
            "num_hidden_layers": 60,
            "n_shared_experts": 2,
            "n_routed_experts": 160,
            "routed_scaling_factor": 16.0,
            "topk_method": "group_limited_greedy",
            "n_group": 8,
            "topk_group": 3,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "norm_topk_prob": False,
            "scoring_func": "softmax",
        },
        235_741_434_880,
        (20.5e9, 21.5e9),  # "21B"
    ),
    "Qwen3-30B-A3B": (
        {
            "model_type": "qwen3_moe",
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
        },
        30_532_122_624,
        (3.0e9, 3.4e9),  # "3.3B", with the whole input embedding
    ),
    "OLMoE-1B-7B": (
        {
            "model_type": "olmoe",
            "vocab_size": 50304,
            "hidden_size": 2048,
            "intermediate_size": 1024,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
            "clip_qkv": None,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05,
        },
        6_919_161_856,
        (1.1e9, 1.3e9),  # "1B"
    ),
    "Mistral-7B-v0.1": (
        {
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-05,
        },
        7_241_732_096,
        (7.0e9, 7.2e9),
    ),
    "Llama-3.2-1B": (
        {
            "model_type": "llama",
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-05,
        },
        1_235_814_400,
        (1.235e9, 1.236e9),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name):
    values, total, (least, most) = PUBLISHED[name]
    accounting = Accounting.of(from_hugging_face(values | {"num_nextn_predict_layers": 0}, "config.json"))
    assert accounting.total_parameters == total
    assert least < accounting.active_parameters < most


def test_a_sliding_window_caps_what_a_token_attends_to(dense):
    full, windowed = Accounting.of(dense()), Accounting.of(dense(attention={"sliding_window": 100}))
    assert windowed.forward_flops_per_token(60) == full.forward_flops_per_token(60)
    assert windowed.forward_flops_per_token(5000) == full.forward_flops_per_token(100)
    assert windowed.training_flops_per_token(5000) == full.training_flops_per_token(100)
    assert windowed.cache_bytes_per_token() == full.cache_bytes_per_token()


def peer_flops(config, tokens, backward):
    """Counted by torch in transformers' model, with attention and experts as plain products."""
    values = to_hugging_face(config)
    peer = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(values.pop("model_type"), **values),
        experts_implementation="eager",
        attn_implementation="eager",
    )
    with FlopCounterMode(display=False) as counter:
        logits = peer(torch.randint(0, config.vocab_size, (1, tokens)), use_cache=False).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


MOE = {"scoring": "softmax", "experts": 8, "experts_per_token": 3, "expert_width": 12, "shared_experts": 0}


@pytest.mark.parametrize("kind", ["mla", "mla, query rank", "gqa", "deepseek_v2", "qwen3_moe", "olmoe"])
def test_flops_against_a_count(kind, sparse, dense):
    """Exactly. (Eager attention computes the whole square, so each token attends to all.)"""
    config = {
        "mla": lambda: sparse(),
        "mla, query rank": lambda: sparse(attention={"q_rank": 10}, moe={"leading_dense_layers": 0}),
        "gqa": lambda: dense(attention={"qkv_bias": True, "head_dim": 6}),
        "deepseek_v2": lambda: sparse(moe={"scoring": "softmax", "normalize_gates": False}),
        "qwen3_moe": lambda: dense(attention={"qk_norm": "head"}, moe=MOE),
        "olmoe": lambda: dense(attention={"qk_norm": "projection"}, moe=MOE | {"leading_dense_layers": 0}),
    }[kind]()
    accounting, tokens = Accounting.of(config), 12
    assert tokens * accounting.forward_flops_per_token(tokens) == peer_flops(config, tokens, backward=False)
    assert tokens * accounting.training_flops_per_token(tokens) == peer_flops(config, tokens, backward=True)


def test_mtp_costs_in_training_only(sparse):
    """One more sparse layer, its joining matrix, and the head once more; three times, forward and backward."""
    without, with_mtp = Accounting.of(sparse()), Accounting.of(sparse(mtp_layers=1))
    assert with_mtp.forward_flops_per_token(10) == without.forward_flops_per_token(10)
    attention = 16 * 4 * 12 + 16 * (12 + 4) + 12 * 4 * (8 + 6) + 4 * 6 * 16
    feed_forward = 16 * 8 + (3 + 1) * 3 * 16 * 12
    products = attention + feed_forward + 2 * 16 * 16 + 50 * 16
    pairs = 4 * (12 + 6)
    extra = with_mtp.training_flops_per_token(10) - without.training_flops_per_token(10)
    assert extra == 3 * 2 * (products + 10 * pairs)
