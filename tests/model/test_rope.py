"""Rotary positions against the complex-number formula; scaled frequencies by hand and against `transformers`."""

import math

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from octavo.model.config import GQAConfig, LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from octavo.model.rope import Rope, rotate_halves, rotate_neighbours, yarn_mscale
from octavo.weights.hf_config import to_hugging_face


def rotated_pairs(first, second, positions_T, dim, theta):
    """(first + i second) e^(i position theta^(-2j / dim)), double precision. first, second [T, N, dim / 2]."""
    exponents = torch.arange(dim // 2, dtype=torch.float64) * 2 / dim
    angles_TP = positions_T.double()[:, None] * theta**-exponents
    turned = (
        torch.complex(first.double(), second.double()) * torch.polar(torch.ones_like(angles_TP), angles_TP)[:, None]
    )
    return turned.real.float(), turned.imag.float()


def test_neighbours_are_complex_numbers():
    x_TNP, positions_T = torch.randn(6, 3, 8), torch.tensor([0, 1, 2, 7, 40, 999])
    real, imaginary = rotated_pairs(x_TNP[..., 0::2], x_TNP[..., 1::2], positions_T, dim=8, theta=100.0)
    found = rotate_neighbours(x_TNP, *Rope(8, theta=100.0)(positions_T))
    torch.testing.assert_close(found[..., 0::2], real, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[..., 1::2], imaginary, rtol=1e-4, atol=1e-4)


def test_halves_are_complex_numbers():
    x_TNP, positions_T = torch.randn(6, 3, 8), torch.tensor([0, 1, 2, 7, 40, 999])
    real, imaginary = rotated_pairs(x_TNP[..., :4], x_TNP[..., 4:], positions_T, dim=8, theta=100.0)
    found = rotate_halves(x_TNP, *Rope(8, theta=100.0)(positions_T))
    torch.testing.assert_close(found[..., :4], real, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[..., 4:], imaginary, rtol=1e-4, atol=1e-4)


def test_the_layouts_differ_by_a_permutation():
    x, rotation = torch.randn(5, 2, 6), Rope(6, theta=10000.0)(torch.arange(5))
    to_halves = [0, 2, 4, 1, 3, 5]
    torch.testing.assert_close(
        rotate_neighbours(x, *rotation)[..., to_halves], rotate_halves(x[..., to_halves], *rotation)
    )
    assert not torch.allclose(rotate_neighbours(x, *rotation), rotate_halves(x, *rotation))


@pytest.mark.parametrize("rotate", [rotate_neighbours, rotate_halves])
def test_scores_depend_on_distances_only(rotate):
    q, k = torch.randn(2, 1, 8)
    rope = Rope(8, theta=100.0)

    def score(query_position, key_position):
        positions = torch.tensor([query_position, key_position])
        cos, sin = rope(positions)
        return rotate(q[None], cos[:1], sin[:1]).flatten() @ rotate(k[None], cos[1:], sin[1:]).flatten()

    torch.testing.assert_close(score(9, 4), score(105, 100), rtol=1e-4, atol=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


@pytest.mark.parametrize("rotate", [rotate_neighbours, rotate_halves])
def test_gradients_of_rotation(rotate):
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(rotate, (x, angles.cos(), angles.sin()))


def test_position_0_turns_nothing():
    x, rotation = torch.randn(1, 2, 8), Rope(8, theta=10000.0)(torch.tensor([0]))
    assert torch.equal(rotate_neighbours(x, *rotation), x)
    assert torch.equal(rotate_halves(x, *rotation), x)


def test_yarn_keeps_fast_and_stretches_slow_frequencies():
    """d(rotations) = P ln(L / (2 pi rotations)) / (2 ln theta); fully kept below d(32), fully divided above d(1)."""
    yarn = YarnConfig(factor=40.0, original_max_positions=4096)
    found = Rope(64, 10000.0, yarn).inverse_frequencies.double()
    plain = 10000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    low, high = 10, 23  # floor(10.47) and ceil(22.51), by hand
    assert math.floor(64 * math.log(4096 / (2 * math.pi * 32)) / (2 * math.log(10000))) == low
    assert math.ceil(64 * math.log(4096 / (2 * math.pi)) / (2 * math.log(10000))) == high
    torch.testing.assert_close(found[: low + 1], plain[: low + 1], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[high:], plain[high:] / 40, rtol=1e-6, atol=0)
    # Half way up the ramp (with 13 steps: 5 / 13 of the way at index 15).
    expected = plain[15] * (1 - 5 / 13) + plain[15] / 40 * 5 / 13
    torch.testing.assert_close(found[15], expected, rtol=1e-6, atol=0)


def test_yarn_without_rounding_blends_from_the_exact_dimensions():
    """d(32) = 10.47 and d(1) = 22.51 in the case above: at index 15, 4.53 of 12.04 of the way."""
    rounded = YarnConfig(factor=40.0, original_max_positions=4096)
    exact = rounded.model_copy(update={"truncate": False})
    plain = 10000.0 ** (-30 / 64)
    low, high = (64 * math.log(4096 / (2 * math.pi * turns)) / (2 * math.log(10000)) for turns in (32, 1))
    slow = (15 - low) / (high - low)
    found = Rope(64, 10000.0, exact).inverse_frequencies
    assert found[15].item() == pytest.approx(plain * (1 - slow) + plain / 40 * slow, rel=1e-5)
    assert not torch.equal(found, Rope(64, 10000.0, rounded).inverse_frequencies)


def test_yarn_amplitude():
    """The paper's temperature, DeepSeek's quotient of two, or the number that a file gives."""
    assert yarn_mscale(40.0, 1.0) == pytest.approx(0.1 * 3.688879454 + 1)
    assert yarn_mscale(40.0, 0.0) == 1.0
    plain = YarnConfig(factor=40.0, original_max_positions=4096)
    rope = Rope(64, 10000.0, plain)
    assert rope.amplitude == pytest.approx(1.3688879454)
    cos, sin = rope(torch.tensor([123]))
    torch.testing.assert_close(cos.square() + sin.square(), torch.full((1, 32), 1.3688879454**2))
    same = plain.model_copy(update={"mscale": 0.707, "mscale_all_dim": 0.707})
    assert Rope(64, 10000.0, same).amplitude == 1.0
    both = plain.model_copy(update={"mscale": 1.0, "mscale_all_dim": 0.5})
    assert Rope(64, 10000.0, both).amplitude == pytest.approx(1.3688879454 / (1 + 0.05 * 3.688879454))
    given = both.model_copy(update={"attention_factor": 1.25})
    assert Rope(64, 10000.0, given).amplitude == 1.25


def test_yarn_scales_the_scores_of_latent_attention(sparse, random_model):
    """(nope + rope)^-0.5 times (0.1 mscale_all_dim ln(factor) + 1) squared."""
    yarn = {"kind": "yarn", "factor": 4.0, "original_max_positions": 64}
    both = yarn | {"mscale": 1.0, "mscale_all_dim": 0.5}
    model = random_model(sparse(rope_scaling=both, max_positions=256))
    assert model.layers[0].attention.scale == pytest.approx(12**-0.5 * (1 + 0.05 * math.log(4)) ** 2)
    for values in ({}, {"rope_scaling": yarn}):
        assert random_model(sparse(**values)).layers[0].attention.scale == pytest.approx(12**-0.5)


def test_linear_scaling_is_interpolation_of_positions():
    """Position 12 under factor 4 is position 3."""
    stretched, plain = Rope(8, 10000.0, LinearRopeConfig(factor=4.0)), Rope(8, 10000.0)
    for found, expected in zip(stretched(torch.tensor([12])), plain(torch.tensor([3])), strict=True):
        torch.testing.assert_close(found, expected)


def test_llama3_keeps_fast_and_stretches_slow_frequencies():
    """By turns within the original context: above high kept, below low divided, between blended. Theta 10,000 and a
    head of 8 give frequencies 1, 0.1, 0.01, 0.001; within 1000 positions these turn 159, 15.9, 1.59, 0.159 times."""
    llama3 = Llama3RopeConfig(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=1000)
    kept = (10 / (2 * math.pi) - 1) / (4 - 1)
    expected = torch.tensor([1.0, 0.1, 0.01 * kept + 0.01 / 8 * (1 - kept), 0.001 / 8])
    torch.testing.assert_close(Rope(8, 10000.0, llama3).inverse_frequencies, expected)


SCALINGS = {
    "none": None,
    "linear": LinearRopeConfig(factor=4.0),
    "llama3": Llama3RopeConfig(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192),
    "yarn": YarnConfig(factor=4.0, original_max_positions=8192),
    "yarn, not truncated": YarnConfig(factor=4.0, original_max_positions=8192, truncate=False),
    "yarn, betas": YarnConfig(factor=4.0, original_max_positions=8192, beta_fast=16.0, beta_slow=2.0),
    "yarn, low equal to high": YarnConfig(factor=4.0, original_max_positions=6, beta_fast=32.0),
    "yarn, attention factor": YarnConfig(factor=4.0, original_max_positions=8192, attention_factor=1.3),
    "yarn, temperatures": YarnConfig(factor=40.0, original_max_positions=4096, mscale=0.707, mscale_all_dim=0.5),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name):
    """To the last bit, or at position 30,000 the angles would differ."""
    config = ModelConfig(
        vocab_size=8,
        width=128,
        layers=1,
        ffn_width=8,
        attention=GQAConfig(heads=2, kv_heads=1),
        max_positions=32768,
        rope_theta=500000.0,
        rope_scaling=SCALINGS[name],
    )
    values = to_hugging_face(config)
    peer = LlamaRotaryEmbedding(transformers.AutoConfig.for_model(values.pop("model_type"), **values))
    rope = Rope(64, 500000.0, SCALINGS[name])
    torch.testing.assert_close(rope.inverse_frequencies, peer.inv_freq, rtol=3e-7, atol=0)
    if name in ("none", "linear"):
        assert torch.equal(rope.inverse_frequencies, peer.inv_freq)
    assert rope.amplitude == pytest.approx(peer.attention_scaling)
