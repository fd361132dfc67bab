"""config.json of published models, as far as it describes shapes; both spellings; what is refused, and why."""

import pytest
import transformers

from octavo.errors import CheckpointError
from octavo.model.accounting import Accounting
from octavo.model.config import GQAConfig, LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from octavo.weights.hf_config import from_hugging_face, to_hugging_face

QWEN25_HALF_B = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMOLLM2_135M = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
QWEN3_06B = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


@pytest.mark.parametrize(
    ("values", "parameters"),
    [(QWEN25_HALF_B, 494_032_768), (SMOLLM2_135M, 134_515_008), (QWEN3_06B, 596_049_920)],
    ids=["Qwen2.5-0.5B", "SmolLM2-135M", "Qwen3-0.6B"],
)
def test_published_dense_models(values, parameters):
    config = from_hugging_face(values, "config.json")
    assert Accounting.of(config).total_parameters == parameters
    again = to_hugging_face(config)
    assert {key: again[key] for key in again.keys() & values.keys()} == {
        key: values[key] for key in again.keys() & values.keys()
    }


def test_attention_of_each_family():
    qwen2, llama, qwen3 = (
        from_hugging_face(values, "config.json").attention for values in (QWEN25_HALF_B, SMOLLM2_135M, QWEN3_06B)
    )
    assert qwen2 == GQAConfig(heads=14, kv_heads=2, qkv_bias=True)
    assert llama == GQAConfig(heads=9, kv_heads=3)
    assert qwen3 == GQAConfig(heads=16, kv_heads=8, head_dim=128, qk_norm="head")


def test_keys_may_be_absent():
    """Defaults of transformers: as many kv heads as heads, theta 10000, no tying; a head of 128 in Qwen3."""
    values = {key: value for key, value in SMOLLM2_135M.items() if not key.startswith(("num_key", "rope", "tie"))}
    config = from_hugging_face(values, "config.json")
    assert (config.attention.kv_heads, config.rope_theta, config.tie_embeddings) == (9, 10000.0, False)
    values = {key: value for key, value in QWEN3_06B.items() if key != "head_dim"}
    assert from_hugging_face(values, "config.json").head_dim == 128


def test_newer_spelling_of_the_rotation():
    parameters = {"rope_type": "default", "rope_theta": 5000.0}
    assert from_hugging_face(SMOLLM2_135M | {"rope_parameters": parameters}, "config.json").rope_theta == 5000.0


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"type": "linear", "factor": 4}, LinearRopeConfig(factor=4.0)),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            Llama3RopeConfig(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192),
        ),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
            YarnConfig(factor=4.0, original_max_positions=8192),
        ),
        # Where the original length is not given, it is the length that is.
        ({"type": "yarn", "factor": 4.0}, YarnConfig(factor=4.0, original_max_positions=32768)),
        (
            {
                "type": "yarn",
                "factor": 40,
                "original_max_position_embeddings": 4096,
                "mscale": 0.707,
                "mscale_all_dim": 0.707,
                "beta_fast": 32,
                "beta_slow": 1,
            },
            YarnConfig(factor=40.0, original_max_positions=4096, mscale=0.707, mscale_all_dim=0.707),
        ),
        (
            {"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0, "beta_fast": None, "truncate": False}
            | {"attention_factor": 1.2},
            YarnConfig(factor=4.0, original_max_positions=32768, truncate=False, attention_factor=1.2),
        ),
    ],
)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_scaled_rotations(spelling, scaling, expected):
    theta = {"rope_theta": 5000.0}
    values = QWEN25_HALF_B | (
        {spelling: scaling} | theta if spelling == "rope_scaling" else {spelling: scaling | theta}
    )
    config = from_hugging_face(values, "config.json")
    assert (config.rope_theta, config.rope_scaling) == (5000.0, expected)
    assert from_hugging_face(to_hugging_face(config), "config.json") == config


def test_the_original_length_beside_the_group():
    values = QWEN25_HALF_B | {"rope_scaling": {"type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 8192}
    assert from_hugging_face(values, "config.json").rope_scaling == YarnConfig(factor=4.0, original_max_positions=8192)


def test_of_both_spellings_the_older_wins_as_in_transformers():
    values = {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}}
    assert from_hugging_face(SMOLLM2_135M | values, "config.json").rope_scaling == LinearRopeConfig(factor=2.0)
    peer = transformers.AutoConfig.for_model(**SMOLLM2_135M | values)
    assert peer.rope_parameters["rope_type"] == "linear"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            r"rope scaling 'dynamic' is not supported \(known: default",
        ),
        ({"rope_scaling": {"rope_type": "longrope"}}, r"rope scaling 'longrope' is not supported"),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"rope scaling \['yarn'\] is not supported"),
        ({"rope_scaling": {"type": "linear"}}, r"rope_scaling.factor is missing"),
        (
            {"rope_scaling": {"type": "linear", "factor": "4"}},
            r"rope_scaling.factor: should be a valid number, got '4'",
        ),
        ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, r"rope_scaling.low_freq_factor is missing"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7}},
            "mscale and mscale_all_dim must be set together",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale_all_dim": 1.0}}, "must be set together, or neither"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": -1.0}},
            "attention_factor: should be greater",
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differ from layer to layer"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is not 1"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is not 1"),
        ({"rope_theta": 0}, "rope_theta: should be greater than 1, got 0"),
    ],
)
def test_rotations_that_cannot_be_built(values, message):
    with pytest.raises(CheckpointError, match=rf"^config.json: .*{message}"):
        from_hugging_face(QWEN25_HALF_B | values, "config.json")


MISTRAL = {key: value for key, value in SMOLLM2_135M.items() if key not in ("attention_bias", "mlp_bias")}
MISTRAL |= {"model_type": "mistral", "head_dim": None}
QWEN3_MOE = QWEN3_06B | {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
OLMOE = SMOLLM2_135M | {"model_type": "olmoe", "num_experts": 64, "num_experts_per_tok": 8}
V2 = {
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
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "topk_method": "greedy",
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-06,
}
V3 = V2 | {"model_type": "deepseek_v3", "topk_method": "noaux_tc", "norm_topk_prob": True}


def test_a_window_is_on_where_mistral_does_not_say():
    def window(**values):
        return from_hugging_face(MISTRAL | values, "config.json").sliding_window

    assert (window(), window(sliding_window=None), window(sliding_window=77)) == (4096, None, 77)


def test_a_window_is_off_where_qwen_does_not_switch_it_on():
    def window(**values):
        return from_hugging_face(QWEN25_HALF_B | values, "config.json").sliding_window

    assert window() is None
    assert window(use_sliding_window=True, max_window_layers=24) is None
    assert window(use_sliding_window=True, max_window_layers=0) == 32768
    assert window(use_sliding_window=True, layer_types=["sliding_attention"] * 24) == 32768
    assert window(use_sliding_window=True, layer_types=["full_attention"] * 24) is None


@pytest.mark.parametrize(
    ("values", "leading"),
    [
        ({}, 0),
        ({"decoder_sparse_step": 1, "mlp_only_layers": []}, 0),
        ({"mlp_only_layers": [0, 1]}, 2),
        ({"mlp_only_layers": [0, 1, 2, 3]}, 4),
        ({"decoder_sparse_step": 4}, 3),
        ({"decoder_sparse_step": 9}, 4),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, 3),
    ],
)
def test_dense_layers_in_front(values, leading):
    assert from_hugging_face(QWEN3_MOE | values, "config.json").moe.leading_dense_layers == leading


def test_the_newer_name_of_the_experts():
    values = {key: value for key, value in QWEN3_MOE.items() if key != "num_experts"}
    assert from_hugging_face(values | {"num_local_experts": 64}, "config.json").moe.experts == 64


@pytest.mark.parametrize(
    ("base", "values", "message"),
    [
        (SMOLLM2_135M, {"attention_bias": True}, "attention_bias is True, and only False is supported"),
        (SMOLLM2_135M, {"mlp_bias": True}, "mlp_bias is True, and only False is supported"),
        (SMOLLM2_135M, {"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' is supported"),
        (QWEN25_HALF_B, {"use_sliding_window": True}, "a sliding window in some layers only is not supported"),
        (
            QWEN3_06B,
            {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
            "a sliding window in some layers only",
        ),
        (QWEN3_06B, {"layer_types": "full_attention"}, "layer_types is 'full_attention', and only"),
        (QWEN3_06B, {"layer_types": ["chunked_attention"]}, "layer_types is .* and only full_attention and"),
        (QWEN25_HALF_B, {"num_hidden_layers": "two"}, "num_hidden_layers should be an integer, got 'two'"),
        (
            QWEN25_HALF_B,
            {"use_sliding_window": True, "max_window_layers": True},
            "max_window_layers should be an integer",
        ),
        (MISTRAL, {"sliding_window": -1}, "attention.sliding_window: should be greater than 0, got -1"),
        (QWEN3_MOE, {"attention_bias": True}, "attention_bias is True"),
        (QWEN3_MOE, {"decoder_sparse_step": 2}, "put dense layers behind sparse ones"),
        (QWEN3_MOE, {"mlp_only_layers": [2]}, "put dense layers behind sparse ones"),
        (QWEN3_MOE, {"decoder_sparse_step": 0}, "decoder_sparse_step is 0 and mlp_only_layers"),
        (QWEN3_MOE, {"mlp_only_layers": "0"}, "mlp_only_layers '0'"),
        (QWEN3_MOE, {"num_experts": 0}, "moe.experts: should be greater than 0, got 0"),
        (OLMOE, {"clip_qkv": 8.0}, "clip_qkv is 8.0, and only None is supported"),
        (OLMOE, {"attention_bias": True}, "attention_bias is True"),
        (V2, {"topk_method": "noaux_tc"}, "topk_method is 'noaux_tc', and only 'greedy' and 'group_limited_greedy'"),
        (V2, {"topk_method": "group_limited_greedy"}, "n_group is missing"),
        (V2, {"norm_topk_prob": True}, "norm_topk_prob is True, and only False is supported"),
        (V2, {"scoring_func": "sigmoid"}, "scoring_func is 'sigmoid', and only 'softmax' is supported"),
        (V2, {"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        (V2, {"num_key_value_heads": 8}, r"num_key_value_heads should be num_attention_heads \(16\)"),
        (V3, {"scoring_func": "softmax"}, "scoring_func is 'softmax', and only 'sigmoid' is supported"),
        (V3, {"topk_method": "greedy"}, "topk_method is 'greedy', and only 'noaux_tc' is supported"),
        (V3, {"rope_interleave": False}, "rope_interleave is False, and only True is supported"),
    ],
)
def test_what_cannot_be_built(base, values, message):
    from_hugging_face(base, "config.json")
    with pytest.raises(CheckpointError, match=rf"^config.json: .*{message}") as caught:
        from_hugging_face(base | values, "config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "key"),
    [
        (SMOLLM2_135M, "hidden_size"),
        (QWEN25_HALF_B, "num_key_value_heads"),
        (QWEN3_MOE, "num_experts"),
        (OLMOE, "intermediate_size"),
        (V2, "q_lora_rank"),
        (V3, "norm_topk_prob"),
    ],
)
def test_keys_whose_absence_would_mean_a_guess(base, key):
    with pytest.raises(CheckpointError, match=f"^config.json: {key} is missing$"):
        from_hugging_face({name: value for name, value in base.items() if name != key}, "config.json")


GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
LATENT = {"kind": "mla", "heads": 4, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
MOE = {"experts": 4, "experts_per_token": 2, "expert_width": 8}
SOFTMAX = MOE | {"scoring": "softmax", "shared_experts": 0, "leading_dense_layers": 0}


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"attention": GQA}, "llama"),
        ({"attention": GQA | {"sliding_window": 5}}, "mistral"),
        ({"attention": GQA | {"heads": 6, "head_dim": 4}}, "mistral"),
        ({"attention": GQA | {"qkv_bias": True, "sliding_window": 5}}, "qwen2"),
        ({"attention": GQA | {"qk_norm": "head", "sliding_window": 5, "head_dim": 6}}, "qwen3"),
        ({"attention": GQA | {"qk_norm": "head"}, "moe": SOFTMAX | {"leading_dense_layers": 1}}, "qwen3_moe"),
        ({"attention": GQA | {"qk_norm": "head", "sliding_window": 5}, "moe": SOFTMAX}, "qwen3_moe"),
        ({"attention": GQA | {"qk_norm": "projection"}, "moe": SOFTMAX}, "olmoe"),
        ({"attention": LATENT, "moe": MOE | {"scoring": "softmax", "normalize_gates": False}}, "deepseek_v2"),
        ({"attention": LATENT, "moe": MOE, "mtp_layers": 2}, "deepseek_v3"),
    ],
)
def test_every_model_has_one_family(parts, kind):
    config = ModelConfig.parse({"vocab_size": 50, "width": 16, "layers": 2, "ffn_width": 8} | parts)
    values = to_hugging_face(config)
    assert values["model_type"] == kind
    assert from_hugging_face(values, "config.json") == config


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"attention": GQA, "moe": MOE},
            "the nearest, qwen3_moe, has attention.qk_norm 'head' .got None., moe.scoring",
        ),
        (
            {"attention": GQA | {"qk_norm": "head"}, "moe": SOFTMAX | {"shared_experts": 1}},
            "moe.shared_experts 0 .got 1.",
        ),
        (
            {"attention": GQA | {"qk_norm": "head"}, "moe": SOFTMAX | {"routed_scale": 2.0}},
            "moe.routed_scale 1.0 .got 2.0.",
        ),
        (
            {"attention": GQA | {"qk_norm": "projection"}, "moe": SOFTMAX | {"leading_dense_layers": 1}},
            "the nearest, olmoe, has moe.leading_dense_layers 0 .got 1.",
        ),
        (
            {"attention": GQA | {"qk_norm": "projection", "head_dim": 6}, "moe": SOFTMAX},
            "heads of width / heads .16 / 4., this model of 6: drop attention.head_dim",
        ),
        ({"attention": GQA | {"qk_norm": "projection"}}, "the nearest, qwen3, has attention.qk_norm 'head' .got 'proj"),
        ({"attention": GQA | {"qkv_bias": True, "qk_norm": "head"}}, "qwen3, has attention.qkv_bias False .got True."),
        ({"attention": GQA, "mtp_layers": 1}, "the nearest, llama, has mtp_layers 0 .got 1."),
        ({"attention": LATENT}, "latent attention without experts has no Hugging Face layout"),
        ({"attention": LATENT, "moe": MOE | {"groups": 4, "groups_per_token": 2}}, "groups of one expert"),
        (
            {"attention": LATENT, "moe": MOE | {"scoring": "softmax"}},
            "the nearest, deepseek_v2, has moe.normalize_gates False .got True.",
        ),
        (
            {"attention": LATENT | {"heads": 3}, "moe": MOE | {"scoring": "softmax", "normalize_gates": False}},
            "transformers wants attention.heads .3. to divide width .16.",
        ),
    ],
)
def test_models_without_a_layout(parts, message):
    config = ModelConfig.parse({"vocab_size": 50, "width": 16, "layers": 2, "ffn_width": 24} | parts)
    with pytest.raises(CheckpointError, match=message) as caught:
        to_hugging_face(config)
    assert "\n" not in str(caught.value)


def test_configs_return():
    shape = {"vocab_size": 50, "width": 16, "layers": 3, "ffn_width": 24, "norm_eps": 1e-5, "max_positions": 99}
    mla = {"kind": "mla", "heads": 4, "kv_rank": 12, "q_rank": 7, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
    moe = {
        "experts": 8,
        "experts_per_token": 3,
        "expert_width": 12,
        "shared_experts": 2,
        "leading_dense_layers": 2,
        "groups": 4,
        "groups_per_token": 2,
        "routed_scale": 2.5,
        "normalize_gates": False,
    }
    config = ModelConfig.parse(shape | {"attention": mla, "moe": moe, "mtp_layers": 2, "tie_embeddings": True})
    assert from_hugging_face(to_hugging_face(config), "config.json") == config
