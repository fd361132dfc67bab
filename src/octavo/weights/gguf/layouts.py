"""Where llama.cpp's layout of a tensor is another than Hugging Face's, in both directions.

Shapes: `N` heads, `P` half a head, `I` columns, `H` nope size, `V` value size, `C` kv rank; `X` = N (H + V).
"""

import torch
from torch import Tensor


def pair_neighbours(halves: Tensor, heads: int) -> Tensor:
    """Queries or keys (weight [2NP, I], or bias without I) whose rotated pairs are the halves of a head -> pairs of
    neighbours [N, P, 2, I], a view.

    llama.cpp rotates a Llama so, and the others as Hugging Face does.
    """
    return halves.unflatten(0, (heads, 2, -1)).transpose(1, 2)


def pair_halves(neighbours: Tensor, heads: int) -> Tensor:
    """The inverse, from the flat [2NP, I] to the flat."""
    return neighbours.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def split_up(kv_b_XC: Tensor, heads: int, nope: int) -> tuple[Tensor, Tensor]:
    """W_kvb -> its keys, transposed, [N, C, H], and its values [N, V, C]: views."""
    k_NHC, v_NVC = kv_b_XC.unflatten(0, (heads, -1)).tensor_split([nope], dim=1)
    return k_NHC.transpose(1, 2), v_NVC


def join_up(k_NCH: Tensor, v_NVC: Tensor) -> Tensor:
    """The inverse of `split_up`."""
    return torch.cat((k_NCH.transpose(1, 2), v_NVC), dim=1).flatten(0, 1)
