"""The one carrier between data and losses.

Shapes: `B` rows, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One micro-batch of packed rows.

    A document begins wherever `positions_BT` is 0 (each row begins with one), and attention never crosses documents.
    Where positions jump to p > 0, a branch begins that continues the first p tokens of the latest document.
    `targets_BT[b, t]` is the token that follows `inputs_BT[b, t]`; its loss counts `weights_BT[b, t]` times (0:
    context, prompt or padding). Padding is a document of its own, with weight 0.
    """

    inputs_BT: Int[Tensor, "B T"]
    targets_BT: Int[Tensor, "B T"]
    weights_BT: Float[Tensor, "B T"]
    positions_BT: Int[Tensor, "B T"]
    advantages_BT: Float[Tensor, "B T"] | None = None
    behaviour_logprobs_BT: Float[Tensor, "B T"] | None = None
    reference_logprobs_BT: Float[Tensor, "B T"] | None = None

    @property
    def tokens(self) -> int:
        """Positions that the model reads, padding included."""
        return self.inputs_BT.numel()

    @property
    def weight(self) -> float:
        """Sum of the loss weights: the batch's share in the global normaliser."""
        return float(self.weights_BT.sum(dtype=torch.float64))
