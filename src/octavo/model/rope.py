"""Rotary position embedding (Su et al. 2021) and its ways to a longer context: linear, Llama 3's, and YaRN.

Two layouts of the rotated pairs exist in released weights: DeepSeek pairs neighbours (0, 1), (2, 3), ...; Llama and
Qwen pair the halves (0, P/2), (1, P/2 + 1), ... Both are here, because exported weights must mean the same elsewhere.

Shapes: `...` any leading axes, `N` heads, `P` rotated head size (even).
"""

import math

import torch
from torch import Tensor, nn

from octavo.model.config import LinearRopeConfig, Llama3RopeConfig, YarnConfig

Scaling = LinearRopeConfig | Llama3RopeConfig | YarnConfig


class Rope(nn.Module):
    """Turns positions into the (cos, sin) by which queries and keys are rotated."""

    inverse_frequencies: Tensor

    def __init__(self, dim: int, theta: float, scaling: Scaling | None = None):
        super().__init__()
        self.dim, self.theta, self.scaling = dim, theta, scaling
        self.amplitude = yarn_amplitude(scaling) if isinstance(scaling, YarnConfig) else 1.0
        # Also where the model has no memory: on the meta device, torch would import for 1.5 s to compute this.
        with torch.device("cpu"):
            self.register_buffer("inverse_frequencies", self._frequencies(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos, sin [..., P / 2]."""
        angles = positions.unsqueeze(-1).to(torch.float32) * self.inverse_frequencies
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude

    def _frequencies(self) -> Tensor:
        # Written as others write it: a rounding here is an angle 4,000 times as large at position 4,000.
        frequencies = 1.0 / self.theta ** (torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)
        match self.scaling:
            case LinearRopeConfig(factor=factor):
                return frequencies / factor
            case Llama3RopeConfig() as llama3:
                return _llama3_frequencies(frequencies, llama3)
            case YarnConfig() as yarn:
                return _yarn_frequencies(frequencies, self.dim, self.theta, yarn)
        return frequencies


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


def yarn_amplitude(yarn: YarnConfig) -> float:
    """What YaRN puts of its temperature into the rotation of queries and keys."""
    if yarn.attention_factor is not None:
        return yarn.attention_factor
    if yarn.mscale is None or yarn.mscale_all_dim is None:
        return yarn_mscale(yarn.factor, 1.0)
    return yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim)


def yarn_score_scale(yarn: YarnConfig) -> float:
    """What YaRN puts of its temperature into the scores of latent attention, most of whose head is not rotated."""
    return 1.0 if yarn.mscale_all_dim is None else yarn_mscale(yarn.factor, yarn.mscale_all_dim) ** 2


def _llama3_frequencies(frequencies: Tensor, llama3: Llama3RopeConfig) -> Tensor:
    """By how often a frequency turns within the original context: blend from divided (0) to kept (1)."""
    turns = frequencies * llama3.original_max_positions / (2 * math.pi)
    kept = ((turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor)).clamp(0, 1)
    return (1 - kept) * frequencies / llama3.factor + kept * frequencies


def _yarn_frequencies(frequencies: Tensor, dim: int, theta: float, yarn: YarnConfig) -> Tensor:
    """Keep fast frequencies, divide slow ones by the factor, and blend linearly between."""

    def dimension_of(rotations: float) -> float:
        return dim * math.log(yarn.original_max_positions / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_of(yarn.beta_fast), dimension_of(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
    slow = ramp.clamp(0, 1)
    return frequencies / yarn.factor * slow + frequencies * (1 - slow)
