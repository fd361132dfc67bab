"""Rotary positions against the complex-number formula, and YaRN's frequencies worked by hand."""

import math

import pytest
import torch

from octavo.model.config import YarnConfig
from octavo.model.rope import Rope, rotate_halves, rotate_neighbours, yarn_mscale


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
    found = Rope(64, theta=10000.0, yarn=yarn).inverse_frequencies.double()
    plain = 10000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    low, high = 10, 23  # floor(10.47) and ceil(22.51), by hand
    assert math.floor(64 * math.log(4096 / (2 * math.pi * 32)) / (2 * math.log(10000))) == low
    assert math.ceil(64 * math.log(4096 / (2 * math.pi)) / (2 * math.log(10000))) == high
    torch.testing.assert_close(found[: low + 1], plain[: low + 1], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[high:], plain[high:] / 40, rtol=1e-6, atol=0)
    # Half way up the ramp (with 13 steps: 5 / 13 of the way at index 15).
    expected = plain[15] * (1 - 5 / 13) + plain[15] / 40 * 5 / 13
    torch.testing.assert_close(found[15], expected, rtol=1e-6, atol=0)


def test_yarn_amplitude_and_temperature():
    assert yarn_mscale(40.0, 1.0) == pytest.approx(0.1 * 3.688879454 + 1)
    assert yarn_mscale(40.0, 0.0) == 1.0
    same = YarnConfig(factor=40.0, original_max_positions=4096)
    assert Rope(64, 10000.0, same).amplitude == 1.0
    # Without mscale_all_dim the temperature is put into the rotation instead.
    rotation_only = YarnConfig(factor=40.0, original_max_positions=4096, mscale_all_dim=0.0)
    rope = Rope(64, 10000.0, rotation_only)
    assert rope.amplitude == pytest.approx(1.3688879454)
    cos, sin = rope(torch.tensor([123]))
    torch.testing.assert_close(cos.square() + sin.square(), torch.full((1, 32), 1.3688879454**2))


def test_yarn_scales_the_scores_of_latent_attention(sparse, random_model):
    """(nope + rope)^-0.5 times (0.1 mscale_all_dim ln(factor) + 1) squared."""
    yarn = {"factor": 4.0, "original_max_positions": 64, "mscale_all_dim": 0.5}
    model = random_model(sparse(yarn=yarn, max_positions=256))
    assert model.layers[0].attention.scale == pytest.approx(12**-0.5 * (1 + 0.05 * math.log(4)) ** 2)
    assert random_model(sparse()).layers[0].attention.scale == pytest.approx(12**-0.5)
