"""Rotary position embedding (Su et al. 2021) with YaRN scaling (Peng et al. 2023, as in DeepSeek-V3).

Two layouts of the rotated pairs exist in released weights: DeepSeek pairs neighbours (0, 1), (2, 3), ...; Llama and
Qwen pair the halves (0, P/2), (1, P/2 + 1), ... Both are here, because exported weights must mean the same elsewhere.

Shapes: `...` any leading axes, `N` heads, `P` rotated head size (even).
"""

import math

import torch
from torch import Tensor, nn

from octavo.model.config import YarnConfig


class Rope(nn.Module):
    """Turns positions into the (cos, sin) by which queries and keys are rotated."""

    inverse_frequencies: Tensor

    def __init__(self, dim: int, theta: float, yarn: YarnConfig | None = None):
        super().__init__()
        self.dim, self.theta, self.yarn = dim, theta, yarn
        self.amplitude = 1.0
        if yarn:
            self.amplitude = yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim)
        self.register_buffer("inverse_frequencies", self._frequencies(), persistent=False)

    def reset_buffers(self) -> None:
        """Compute the frequencies anew, after the module was made without memory."""
        self.inverse_frequencies.copy_(self._frequencies())

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos, sin [..., P / 2]."""
        angles = positions.unsqueeze(-1).to(torch.float32) * self.inverse_frequencies
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude

    def _frequencies(self) -> Tensor:
        frequencies = self.theta ** -(torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)
        return _yarn_frequencies(frequencies, self.dim, self.theta, self.yarn) if self.yarn else frequencies


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2i, 2i + 1). x [..., N, P]; cos, sin [..., P / 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + P / 2). x [..., N, P]; cos, sin [..., P / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def yarn_mscale(factor: float, mscale: float) -> float:
    """Temperature of attention under YaRN: 0.1 mscale ln(factor) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0


def _yarn_frequencies(frequencies: Tensor, dim: int, theta: float, yarn: YarnConfig) -> Tensor:
    """Keep fast frequencies, divide slow ones by the factor, and blend linearly between."""

    def dimension_of(rotations: float) -> float:
        return dim * math.log(yarn.original_max_positions / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension_of(yarn.beta_fast)), 0)
    high = min(math.ceil(dimension_of(yarn.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    slow = ramp.clamp(0, 1)
    return frequencies / yarn.factor * slow + frequencies * (1 - slow)
