"""Draws the next token of every row; the only owner of sampling randomness.

Shapes: `B` rows, `V` vocabulary, `R` rows whose distribution is truncated, `C` candidates of a truncated row.

Randomness is counter-based (splitmix64, Steele et al. 2014): the draw at a position is a function of the request's
seed, the sample's index and the position alone, so it depends neither on other rows nor on when the row was scheduled.
Requests of one seed share their random numbers: give every request its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from octavo import native
from octavo.errors import CheckpointError

CANDIDATES = 1024
"""Truncated rows are sorted this far; those that need more are then sorted whole. The result is the same."""

_NOT_FINITE = "the model gives logits that are not finite: its weights are damaged or have diverged"

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Draws:
    """How each row is drawn. Temperature 0 is greedy; `top_k` 0 and `top_p` 1 truncate nothing."""

    temperature_B: np.ndarray
    top_p_B: np.ndarray
    top_k_B: np.ndarray
    key_B: np.ndarray
    """`stream_key` of the row's seed and sample."""
    position_B: np.ndarray
    """How many tokens the row has drawn before."""


def stream_key(seed: int, sample: int) -> np.uint64:
    """Start of the random stream of one sample of a request; any integer is a seed (taken modulo 2^64)."""
    key = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(key ^ _mix(np.array([sample], np.uint64) + _GOLDEN))[0]


def uniforms(key_B: np.ndarray, position_B: np.ndarray) -> np.ndarray:
    """Float64 in [0, 1), 53 random bits, one for each (stream, position)."""
    return (_mix(key_B + (position_B.astype(np.uint64) + np.uint64(1)) * _GOLDEN) >> np.uint64(11)) * 2.0**-53


def sample(logits_BV: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return ids_B (int64) and logprobs_B (float32 nats; of the whole distribution at temperature 1).

    Order of the truncations, as in transformers and vLLM: temperature, then the `top_k` likeliest tokens, then the
    smallest set of the likeliest among these that holds at least `top_p` of their mass.
    Raises CheckpointError where the logits are not finite.
    """
    greedy_B = draws.temperature_B == 0
    truncated_B = ~greedy_B & ((draws.top_p_B < 1) | (draws.top_k_B > 0))
    if not truncated_B.any() and native.serves(logits_BV):
        drawn = native.sample(logits_BV, draws.temperature_B, uniforms(draws.key_B, draws.position_B))
        if drawn is None:
            raise CheckpointError(_NOT_FINITE)
        return drawn
    shifted_BV = logits_BV.float()
    shifted_BV = shifted_BV - shifted_BV.amax(-1, keepdim=True)
    weights_BV = shifted_BV.exp()
    log_total_B = weights_BV.sum(-1).log()
    if not torch.isfinite(log_total_B).all():
        raise CheckpointError(_NOT_FINITE)
    if greedy_B.all():
        ids_B = shifted_BV.argmax(-1)
    else:
        device = logits_BV.device
        uniform_B = torch.from_numpy(uniforms(draws.key_B, draws.position_B)).to(device)
        if (draws.temperature_B != 1).any():
            temperature_B = np.where(greedy_B, np.float32(1), draws.temperature_B)
            weights_BV = (shifted_BV / torch.from_numpy(temperature_B).to(device)[:, None]).exp()
        if truncated_B.all():
            ids_B = _draw_truncated(weights_BV, draws.top_k_B, draws.top_p_B, uniform_B)
        else:
            ids_B = _draw_whole(weights_BV, uniform_B)
            if truncated_B.any():
                rows_R = torch.from_numpy(np.flatnonzero(truncated_B)).to(device)
                top_k_R, top_p_R = draws.top_k_B[truncated_B], draws.top_p_B[truncated_B]
                ids_B[rows_R] = _draw_truncated(weights_BV[rows_R], top_k_R, top_p_R, uniform_B[rows_R])
            if greedy_B.any():
                rows_R = torch.from_numpy(np.flatnonzero(greedy_B)).to(device)
                ids_B[rows_R] = shifted_BV[rows_R].argmax(-1)
    logprobs_B = shifted_BV.gather(1, ids_B[:, None])[:, 0] - log_total_B
    return ids_B, logprobs_B


def _draw_whole(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Inverse of the cumulative distribution: the first token whose cumulative weight exceeds u times the total."""
    cumulative_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    total_B = cumulative_BV[:, -1]
    # Below the total even after rounding, so that a token of weight 0 at the end is never drawn.
    threshold_B = torch.minimum(uniform_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return torch.searchsorted(cumulative_BV, threshold_B[:, None], right=True)[:, 0]


def _draw_truncated(
    weights_RV: Tensor, top_k_R: np.ndarray, top_p_R: np.ndarray, uniform_R: Tensor, candidates: int = CANDIDATES
) -> Tensor:
    """The same on the likeliest tokens only, in falling order; equal weights in an order that is fixed for a row."""
    vocabulary = weights_RV.shape[1]
    if candidates < vocabulary:
        sorted_RC, tokens_RC = weights_RV.topk(candidates)
    else:
        candidates = vocabulary
        sorted_RC, tokens_RC = weights_RV.sort(dim=-1, descending=True, stable=True)
    cumulative_RC = sorted_RC.cumsum(-1, dtype=torch.float64)
    total_R = cumulative_RC[:, -1] if candidates == vocabulary else weights_RV.sum(-1, dtype=torch.float64)

    kept = np.where(top_k_R > 0, np.minimum(top_k_R, vocabulary), vocabulary)
    kept_R = torch.from_numpy(kept).to(weights_RV.device)
    kept_mass_R = cumulative_RC.gather(1, (kept_R.clamp(max=candidates) - 1)[:, None])[:, 0]
    kept_mass_R = torch.where(kept_R <= candidates, kept_mass_R, total_R)
    nucleus_R = torch.from_numpy(top_p_R).to(kept_mass_R) * kept_mass_R
    last_R1 = torch.searchsorted(cumulative_RC, nucleus_R[:, None]).clamp(max=candidates - 1)
    mass_R1 = cumulative_RC.gather(1, last_R1)
    rank_R1 = torch.searchsorted(cumulative_RC, uniform_R[:, None] * mass_R1, right=True).minimum(last_R1)
    ids_R = tokens_RC.gather(1, rank_R1)[:, 0]

    # The candidates settle a row if its top_k lies among them, or if there is no top_k and they hold the nucleus.
    short_R = (kept_R > candidates) & ((kept_R < vocabulary) | (cumulative_RC[:, -1] < nucleus_R))
    if short_R.any():
        short = short_R.cpu().numpy()
        ids_R[short_R] = _draw_truncated(
            weights_RV[short_R], top_k_R[short], top_p_R[short], uniform_R[short_R], candidates=vocabulary
        )
    return ids_R


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 on uint64 (arithmetic modulo 2^64)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))
