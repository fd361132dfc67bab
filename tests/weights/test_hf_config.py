"""config.json of published models, as far as it describes shapes, and what YaRN's older and newer spellings mean."""

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from octavo.errors import CheckpointError
from octavo.model.accounting import Accounting
from octavo.model.config import GQAConfig, ModelConfig, YarnConfig
from octavo.model.rope import Rope
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
    assert qwen3 == GQAConfig(heads=16, kv_heads=8, head_dim=128, qk_norm=True)


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


@pytest.mark.parametrize("temperature", [{}, {"mscale": 1.0}, {"mscale": 0.7, "mscale_all_dim": 1.3}])
def test_yarn_means_what_transformers_means(temperature):
    """Qwen's files give no temperature at all, DeepSeek's give both; the rotation must be the same."""
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, **temperature}
    values = QWEN25_HALF_B | {"rope_scaling": scaling}
    config = from_hugging_face(values, "config.json")
    peer = transformers.AutoConfig.for_model(**values)
    frequencies, amplitude = ROPE_INIT_FUNCTIONS["yarn"](peer, device=torch.device("cpu"))
    rope = Rope(config.head_dim, config.rope_theta, config.yarn)
    torch.testing.assert_close(rope.inverse_frequencies, frequencies)
    assert rope.amplitude == pytest.approx(amplitude)
    assert from_hugging_face(to_hugging_face(config), "config.json") == config


def test_yarn_of_deepseek():
    scaling = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0}
    scaling |= {"mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}
    config = from_hugging_face(SMOLLM2_135M | {"rope_scaling": scaling}, "config.json")
    assert config.yarn == YarnConfig(factor=40.0, original_max_positions=4096)


@pytest.mark.parametrize(
    "scaling",
    [
        {"attention_factor": 1.2},
        {"mscale_all_dim": 1.0},
        {"mscale": 0.7},
        {"mscale": 0.7, "mscale_all_dim": 0},
    ],
)
def test_temperatures_that_tools_read_differently_are_refused(scaling):
    scaling = {"type": "yarn", "factor": 4.0, **scaling}
    with pytest.raises(CheckpointError, match=r"config.json: YaRN's temperature is supported as"):
        from_hugging_face(QWEN25_HALF_B | {"rope_scaling": scaling}, "config.json")


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
