"""Sequence-wise balance loss of DeepSeek-V3 (arXiv 2412.19437, eq. 17-20): keeps each document from leaning on a few
experts.

Deviation: the paper gives the value for one sequence. Here it is summed over documents, each weighted by its tokens,
so that dividing by the number of tokens read gives the mean and packing or micro-batching does not change it. The
factor alpha is left to the caller.

Shapes: `R` flat tokens, `E` experts, `K` chosen experts, `S` documents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sequence_balance_loss(
    scores_RE: Float[Tensor, "R E"],
    chosen_RK: Int[Tensor, "R K"],
    document_R: Int[Tensor, "R"],
    documents: int,
) -> Float[Tensor, ""]:
    """Sum over documents s of T_s sum_i f_i P_i; it is the number of tokens where every document is in perfect balance.

    f_i = E / (K T_s) x (times that expert i was chosen in s), a constant; P_i = mean over s of the normalized score
    of expert i, which carries the gradient. `document_R` holds the document (0 ... documents - 1) of each token.
    """
    experts, chosen = scores_RE.shape[1], chosen_RK.shape[1]
    slots_RK = document_R[:, None] * experts + chosen_RK
    counts_SE = torch.bincount(slots_RK.flatten(), minlength=documents * experts).view(documents, experts)
    tokens_S = torch.bincount(document_R, minlength=documents).clamp(min=1)
    fraction_SE = counts_SE.to(scores_RE.dtype) * (experts / chosen) / tokens_S[:, None]
    # sum_s T_s sum_i f_si P_si = sum over tokens t of sum_i f_s(t)i normalized_ti
    normalized_RE = scores_RE / scores_RE.sum(-1, keepdim=True)
    return (normalized_RE * fraction_SE.index_select(0, document_R)).sum()
