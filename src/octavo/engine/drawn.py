"""What is told of single tokens to those who ask for it: log-probs, and the likeliest alternatives.

Shapes: `V` vocabulary, `R` rows that are asked about, `K` alternatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.model.transformer import Transformer

_CHUNK_TOKENS = 256
"""Logits of so many positions exist at once."""


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
    values_RK, tokens_RK = logprobs_RV.topk(min(max(top, default=0), logits_RV.shape[1]))
    return [
        DrawnToken(token, float(logprobs_V[token]), tuple(zip(tokens[:wanted], values[:wanted], strict=True)))
        for token, wanted, logprobs_V, tokens, values in zip(
            ids, top, logprobs_RV, tokens_RK.tolist(), values_RK.tolist(), strict=True
        )
    ]


def score(model: Transformer, ids: Sequence[int], top: int) -> list[DrawnToken]:
    """Each token but the first as what might have been drawn behind those before it."""
    device = model.norm.weight.device
    inputs_1T = torch.tensor([ids[:-1]], dtype=torch.int64, device=device)
    if not inputs_1T.numel():
        return []
    hidden_TD = model(inputs_1T, torch.arange(len(ids) - 1, device=device)[None])[0]
    told: list[DrawnToken] = []
    for hidden_RD in hidden_TD.split(_CHUNK_TOKENS):
        next_ids = ids[len(told) + 1 : len(told) + 1 + len(hidden_RD)]
        told += describe(model.logits(hidden_RD), next_ids, [top] * len(next_ids))
    return told
