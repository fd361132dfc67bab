"""Shapes that cannot be built are refused in one line that names the field."""

import pytest

from octavo.errors import ConfigError
from octavo.model.config import ModelConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"moe": {"experts_per_token": 9}}, r"experts_per_token \(9\) exceeds experts \(8\)"),
        ({"moe": {"groups": 3}}, r"groups \(3\) must divide experts \(8\)"),
        ({"moe": {"groups": 2, "groups_per_token": 3}}, r"groups_per_token \(3\) exceeds groups \(2\)"),
        ({"moe": {"groups": 4, "groups_per_token": 1}}, r"experts_per_token \(3\) exceeds the 2 of the kept groups"),
        ({"moe": {"leading_dense_layers": 4}}, r"leading_dense_layers \(4\) exceeds layers \(3\)"),
        ({"moe": {"expert_width": 10}}, r"moe.expert_width \(10\) must be multiples of 4"),
        ({"moe": {"expert_width": 0}}, r"moe.expert_width: should be greater than 0, got 0"),
        ({"attention": {"rope_dim": 3}}, r"rope_dim must be even, got 3"),
        ({"attention": {"heads": -1}}, r"attention.heads: should be greater than 0, got -1"),
        ({"vocab_size": 0}, r"vocab_size: should be greater than 0, got 0"),
        ({"layers": 1.5}, r"layers: .* got 1.5"),
        ({"norm_eps": 0.0}, r"norm_eps: should be greater than 0, got 0.0"),
        (
            {"rope_scaling": {"kind": "yarn", "factor": 0.5, "original_max_positions": 64}},
            r"rope_scaling.factor: should be greater than or equal to 1, got 0.5",
        ),
        (
            {"rope_scaling": {"kind": "yarn", "factor": 2.0, "original_max_positions": 64, "mscale": 0.7}},
            r"rope_scaling: mscale and mscale_all_dim must be set together, or neither",
        ),
        (
            {
                "rope_scaling": {"kind": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
                | {"original_max_positions": 64}
            },
            r"rope_scaling: high_freq_factor \(4.0\) must exceed low_freq_factor \(4.0\)",
        ),
        ({"rope_scaling": {"kind": "dynamic", "factor": 2.0}}, r"rope_scaling.kind: unknown value 'dynamic'"),
        ({"rope_scaling": {"factor": 2.0}}, r"rope_scaling.kind is missing"),
        ({"rope_theta": 1.0}, r"rope_theta: should be greater than 1, got 1.0"),
        ({"moe": {"scoring": "tanh"}}, r"moe.scoring: should be 'sigmoid' or 'softmax', got 'tanh'"),
        ({"widht": 16}, r"unknown key widht \(did you mean width\?\)"),
        ({"attention": {"kv_head": 2}}, r"unknown key attention.kv_head"),
        ({"attention": {"kind": "mqa"}}, r"attention.kind: unknown value 'mqa'"),
    ],
)
def test_sparse_shapes(sparse, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sparse(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention": {"heads": 3, "kv_heads": 3}}, r"attention.heads \(3\) must divide width \(16\)"),
        ({"attention": {"heads": 4, "kv_heads": 3}}, r"kv_heads \(3\) must divide heads \(4\)"),
        ({"attention": {"head_dim": 5}}, r"the head size must be even for RoPE, got 5"),
        ({"attention": {"heads": 16, "kv_heads": 16}}, r"the head size must be even for RoPE, got 1"),
        ({"attention": {"kv_rank": 4}}, r"unknown key attention.kv_rank"),
        ({"attention": {"qk_norm": True}}, r"attention.qk_norm: should be 'head' or 'projection', got True"),
        ({"attention": {"sliding_window": 0}}, r"attention.sliding_window: should be greater than 0, got 0"),
    ],
)
def test_dense_shapes(dense, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dense(**values)
    assert "\n" not in str(caught.value)


def test_configs_survive_writing(sparse, dense):
    yarn = {"kind": "yarn", "factor": 4.0, "original_max_positions": 64}
    for config in (sparse(rope_scaling=yarn), dense(attention={"qk_norm": "head", "sliding_window": 8})):
        assert ModelConfig.parse(config.dump()) == config


def test_which_layers_are_sparse(sparse, dense):
    assert [sparse().is_sparse(layer) for layer in range(4)] == [False, True, True, True]
    assert [dense().is_sparse(layer) for layer in range(4)] == [False] * 4
