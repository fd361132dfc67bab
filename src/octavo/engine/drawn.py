"""What is told of single tokens to those who ask for it: log-probs, and the likeliest alternatives.

Shapes: `V` vocabulary, `R` rows that are asked about, `K` alternatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DrawnToken:
    """One token with its log-prob and the likeliest ones at its place, likeliest first.

    Log-probs (nats) are of the model's own distribution at temperature 1, whatever the sampling values and constraints.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def describe(logits_RV: Tensor, ids: Sequence[int], top: Sequence[int]) -> list[DrawnToken]:
    """The tokens drawn from `logits_RV`, each with its `top[r]` likeliest alternatives."""
    logprobs_RV = logits_RV.float().log_softmax(-1)
    values_RK, tokens_RK = logprobs_RV.topk(min(max(top), logits_RV.shape[1]))
    return [
        DrawnToken(token, float(logprobs_V[token]), tuple(zip(tokens[:wanted], values[:wanted], strict=True)))
        for token, wanted, logprobs_V, tokens, values in zip(
            ids, top, logprobs_RV, tokens_RK.tolist(), values_RK.tolist(), strict=True
        )
    ]
