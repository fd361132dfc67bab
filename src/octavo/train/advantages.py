"""Rewards of a group of completions -> advantages: how much better each is than its siblings.

GRPO (DeepSeekMath, arXiv 2402.03300): (r - mean) / std of the group. Dr. GRPO (2503.20783) leaves the std out, as it
favors groups that are almost tied. The std is that of the population.

Shapes: `P` prompts, `G` samples a prompt.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def group_advantages(
    rewards_PG: Float[Tensor, "P G"],
    scored_PG: Bool[Tensor, "P G"],
    scale_by_std: bool = True,
    tie_tolerance: float = 1e-6,
) -> tuple[Float[Tensor, "P G"], Bool[Tensor, "P"]]:
    """Return (advantages, whether each group is tied).

    Samples that could not be scored count neither in mean nor std, and have advantage 0. A group is tied, with all its
    advantages 0, if its rewards lie within `tie_tolerance`: nothing sets its samples apart. So it is with fewer than
    two.
    """
    counted_P = scored_PG.sum(1)
    rewards_PG = rewards_PG.double()
    highest_P = rewards_PG.masked_fill(~scored_PG, -torch.inf).amax(1)
    lowest_P = rewards_PG.masked_fill(~scored_PG, torch.inf).amin(1)
    tied_P = (counted_P < 2) | (highest_P - lowest_P <= tie_tolerance)

    used_PG = scored_PG & ~tied_P[:, None]
    count_P1 = counted_P.clamp(min=1)[:, None]
    mean_P1 = torch.where(used_PG, rewards_PG, 0.0).sum(1, keepdim=True) / count_P1
    advantages_PG = torch.where(used_PG, rewards_PG - mean_P1, 0.0)
    if scale_by_std:
        std_P1 = (advantages_PG.square().sum(1, keepdim=True) / count_P1).sqrt()
        advantages_PG = torch.where(used_PG, advantages_PG / std_P1, 0.0)
    return advantages_PG.float(), tied_P
