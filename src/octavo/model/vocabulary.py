"""Rows for new tokens.

Shapes: `V` vocabulary, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from octavo.model.transformer import Transformer


@torch.no_grad()
def add_tokens(model: Transformer, pieces: Sequence[Sequence[int]], first: int) -> None:
    """Give new tokens rows in the embedding and, if it is a matrix of its own, the head, in place.

    `pieces[i]`: the old tokens that token `first + i` is made of; its rows begin as the means of theirs, so that what
    is read and foretold at first resembles what its pieces were. Rows that the model has beyond its tokenizer's
    vocabulary are used first. All other weights stay as they are.
    """
    model.embed = nn.Embedding.from_pretrained(_grown(model.embed.weight, pieces, first), freeze=False)
    vocab_size = model.embed.num_embeddings
    if model.head is not None:
        weight_VD = _grown(model.head.weight, pieces, first)
        model.head = nn.Linear(weight_VD.shape[1], vocab_size, bias=False, device="meta")
        model.head.weight = nn.Parameter(weight_VD)
    model.config = model.config.model_copy(update={"vocab_size": vocab_size})


def _grown(weight_VD: Tensor, pieces: Sequence[Sequence[int]], first: int) -> Tensor:
    grown_VD = weight_VD.new_zeros(max(len(weight_VD), first + len(pieces)), weight_VD.shape[1])
    grown_VD[: len(weight_VD)] = weight_VD
    for token, ids in enumerate(pieces, start=first):
        grown_VD[token] = weight_VD[list(ids)].mean(dim=0)
    return grown_VD
