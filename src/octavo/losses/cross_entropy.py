"""Cross-entropy: the loss of pretraining, SFT and distillation on samples.

Shapes: `R` flat tokens, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from octavo.losses.logprobs import token_objective
from octavo.losses.loss_sum import LossSum


def cross_entropy(
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    targets_R: Int[Tensor, "R"],
    weights_R: Float[Tensor, "R"],
) -> LossSum:
    """Sum of weight x -log p(target), nats. Rows of weight 0 are left out before the head, so they cost nothing.

    Statistic: `correct_probability`, the weighted sum of p(target).
    """
    rows = weights_R.nonzero().squeeze(1)
    if len(rows) < len(weights_R):
        hidden_RD, targets_R, weights_R = hidden_RD[rows], targets_R[rows], weights_R[rows]
    loss_sum, logprobs_R, _ = token_objective(
        lambda rows, logprobs_C: -(weights_R[rows] * logprobs_C).sum(), hidden_RD, weight_VD, targets_R
    )
    return LossSum(loss_sum, sums={"correct_probability": (weights_R * logprobs_R.exp()).sum()})
