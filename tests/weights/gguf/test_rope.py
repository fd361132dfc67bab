"""The rotation as llama.cpp does it, computed here by its own formulas, against ours."""

import math

import numpy as np
import pytest
import torch

from octavo.errors import CheckpointError
from octavo.model.config import Llama3RopeConfig, ModelConfig, YarnConfig
from octavo.model.rope import Rope, yarn_score_scale
from octavo.weights.gguf.rope import rope_factors, rope_metadata

_GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2, "head_dim": 64}
_MLA = {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 64, "v_dim": 6}
LLAMA32 = {"kind": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def config(attention=_GQA, theta=10000.0, **scaling) -> ModelConfig:
    shape = {"vocab_size": 50, "width": 16, "layers": 1, "ffn_width": 24, "rope_theta": theta, "attention": attention}
    return ModelConfig.parse(shape | {"rope_scaling": scaling or None})


def ggml_rope(dim, metadata, log_multiplier):
    """Frequencies and amplitude of ggml_rope_ext (rope_yarn) under llama_context's settings, and the scale of scores in
    deepseek2, for a file with this metadata."""
    theta, factor = metadata["rope.freq_base"], metadata["rope.scaling.factor"]
    original = metadata["rope.scaling.original_context_length"]

    def corrected(beta):
        return dim * math.log(original / (beta * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(0, math.floor(corrected(32.0))), min(dim - 1, math.ceil(corrected(1.0)))
    steps = np.arange(dim // 2)
    extrapolated = theta ** (-2.0 * steps / dim)
    ramp = 1 - np.clip((steps - low) / max(0.001, high - low), 0, 1)
    frequencies = extrapolated / factor * (1 - ramp) + extrapolated * ramp
    grown = 1 + 0.1 * math.log(factor)
    attention = 1.0
    if not log_multiplier:
        attention = grown
    attention *= metadata.get("rope.scaling.attn_factor", 1.0) / grown
    amplitude = attention * grown  # the kernel multiplies it back
    score = (attention * grown * (1 + 0.1 * (log_multiplier / 0.1) * math.log(factor))) ** 2
    return frequencies, amplitude, score


@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"attention_factor": 1.3},
        {"mscale": 1.0, "mscale_all_dim": 0.5},
    ],
)
def test_yarn_of_grouped_attention(scaling):
    model = config(kind="yarn", factor=4.0, original_max_positions=4096, **scaling)
    metadata = rope_metadata(model, "qwen2")
    frequencies, amplitude, _ = ggml_rope(64, metadata, 0.0)
    rope = Rope(64, model.rope_theta, model.rope_scaling)
    np.testing.assert_allclose(rope.inverse_frequencies.numpy(), frequencies, rtol=1e-5)
    assert amplitude == pytest.approx(rope.amplitude)


@pytest.mark.parametrize("mscale", [0.707, 1.0])
def test_yarn_of_latent_attention(mscale):
    model = config(_MLA, kind="yarn", factor=40.0, original_max_positions=4096, mscale=mscale, mscale_all_dim=mscale)
    metadata = rope_metadata(model, "deepseek2")
    frequencies, amplitude, score = ggml_rope(64, metadata, metadata["rope.scaling.yarn_log_multiplier"])
    rope = Rope(64, model.rope_theta, model.rope_scaling)
    np.testing.assert_allclose(rope.inverse_frequencies.numpy(), frequencies, rtol=1e-5)
    assert rope.amplitude == 1.0
    # llama_context cancels what the kernel multiplies, where the file gives a multiplier.
    assert amplitude == pytest.approx(1.0)
    assert isinstance(model.rope_scaling, YarnConfig)
    assert score == pytest.approx(yarn_score_scale(model.rope_scaling))


def test_factors_of_llama3():
    """llama.cpp divides the frequencies of theta by these; its converter computes them so."""
    model = config(theta=500000.0, original_max_positions=8192, **LLAMA32)
    factors = rope_factors(model)
    assert factors is not None
    expected = []
    for frequency in 1.0 / 500000.0 ** (torch.arange(0, 64, 2) / 64):
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4.0:
            expected.append(1.0)
        elif wavelength > 8192 / 1.0:
            expected.append(32.0)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            expected.append(1 / ((1 - smooth) / 32.0 + smooth))
    np.testing.assert_allclose(factors, expected, rtol=1e-5)
    assert rope_factors(config()) is None


@pytest.mark.parametrize(
    ("model", "architecture", "message"),
    [
        (config(_MLA, kind="linear", factor=2.0), "deepseek2", "does not know linear rope scaling in deepseek2"),
        (config(original_max_positions=99, **LLAMA32), "qwen2", "does not know llama3 rope scaling in qwen2"),
        (config(kind="yarn", factor=2.0, original_max_positions=64, beta_fast=16), "llama", "YaRN with beta_fast 32"),
        (config(kind="yarn", factor=2.0, original_max_positions=64, truncate=False), "llama", "and truncate only"),
        (
            config(_MLA, kind="yarn", factor=2.0, original_max_positions=64),
            "deepseek2",
            "where mscale is mscale_all_dim",
        ),
    ],
)
def test_rotations_that_llama_cpp_does_not_know(model, architecture, message):
    with pytest.raises(CheckpointError, match=message):
        rope_metadata(model, architecture)


BASE = {
    "llama.block_count": 1,
    "llama.context_length": 131072,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500000.0,
}


def scaling_of(written, metadata, factors=None):
    from octavo.weights.gguf.source import GGUFSource
    from octavo.weights.hf_config import from_hugging_face

    tensors = {"token_embd.weight": (np.ones((3, 256)), "F32")}
    if factors is not None:
        tensors["rope_freqs.weight"] = (factors, "F32")
    with GGUFSource(written(BASE | metadata, tensors)) as source:
        return from_hugging_face(source.config, "model.gguf").rope_scaling


def factors_of(**fields) -> np.ndarray:
    factors = rope_factors(config(theta=500000.0, kind="llama3", **fields))
    assert factors is not None
    return factors


def test_parameters_out_of_factors(written):
    """The files hold no parameters; Meta's own are known, others lie on a line."""
    meta = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 8192}
    assert scaling_of(written, {}, factors_of(**meta)) == Llama3RopeConfig(**meta)
    other = {"factor": 16.0, "low_freq_factor": 2.0, "high_freq_factor": 7.5, "original_max_positions": 8192}
    assert scaling_of(written, {}, factors_of(**other)) == Llama3RopeConfig(**other)
    # With another length of pretraining and none in the file, the same rotation by other numbers.
    shorter = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 4096}
    found = scaling_of(written, {}, factors_of(**shorter))
    assert found == Llama3RopeConfig(factor=8.0, low_freq_factor=2.0, high_freq_factor=8.0, original_max_positions=8192)
    named = {"llama.rope.scaling.original_context_length": 4096}
    assert scaling_of(written, named, factors_of(**shorter)) == Llama3RopeConfig(**shorter)


@pytest.mark.parametrize("factor", [1.0, 1.00001])
def test_factors_that_do_nothing(written, factor):
    assert scaling_of(written, {}, np.full(32, factor)) is None


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (np.ones(31), r"rope_freqs.weight is F32 of shape \(31,\), expected F32 of shape \(32,\)"),
        (np.linspace(1, 3, 32), "rope_freqs.weight is not of Llama 3's scaling"),
        (np.full(32, 0.5), "rope_freqs.weight is not of Llama 3's scaling"),
        (np.full(32, np.nan), "rope_freqs.weight is not of Llama 3's scaling"),
    ],
)
def test_factors_of_another_scaling(written, factors, message):
    with pytest.raises(CheckpointError, match=message):
        scaling_of(written, {}, factors)


def test_scalings_that_metadata_holds(written):
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    original = {"llama.rope.scaling.original_context_length": 32768}
    assert scaling_of(written, yarn | original) == YarnConfig(factor=4.0, original_max_positions=32768)
    found = scaling_of(written, yarn | original | {"llama.rope.scaling.attn_factor": 0.5})
    assert found.attention_factor == pytest.approx(0.5 * (1 + 0.1 * math.log(4)))
    assert scaling_of(written, {"llama.rope.scale_linear": 2.0}).factor == 2.0
    assert scaling_of(written, {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 2.0}) is None
    assert scaling_of(written, {}) is None
    with pytest.raises(CheckpointError, match=r"llama.rope.scaling.factor should be 1 or more with YaRN, got 0.5"):
        scaling_of(written, yarn | {"llama.rope.scaling.factor": 0.5})
