"""What every loss returns: sums, never means.

A mean over a micro-batch would make the gradient depend on how a step is cut into micro-batches. So a loss gives
sums, and the loop divides them once by a normalizer that is summed over all micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """The loss of one micro-batch, with its statistics (scalars without gradient).

    `sums` are divided by the global weight like the loss itself (so a weighted sum becomes a weighted mean); of
    `maxima` the largest over micro-batches and ranks is kept. Every micro-batch and rank must give the same names.
    """

    loss_sum: Float[Tensor, ""]
    """What is minimized and reported as loss; divided by the global normalizer (the weight, unless a trainer has
    another)."""
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary_sum: Float[Tensor, ""] | None = None
    """Minimized too, but not reported as loss (multi-token prediction, already weighted); divided by the global
    weight."""
    balance_sum: Float[Tensor, ""] | None = None
    """Balance loss of the experts, already weighted: summed over tokens read, and divided by their global number."""
