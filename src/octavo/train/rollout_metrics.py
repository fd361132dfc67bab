"""What a rollout is judged by, over all completions that were drawn, those of tied groups included."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo import rundir
from octavo.tasks.types import Rollout
from octavo.world import World

REWARD_PARTS = ("accuracy", "format", "language", "overlong")
"""Parts that are reported, where a reward has them, as `reward_<part>`."""


def rollout_metrics(rollouts: Sequence[Rollout], world: World) -> dict[str, float]:
    """Means over the scored completions of all ranks; lengths and masked share over all.

    `correct` is the share of right answers, whatever the weight of the accuracy reward; `masked` the share that no
    verifier could score.
    """
    scored = [rollout for rollout in rollouts if rollout.grade.scored]
    lengths = [len(rollout.completion.ids) for rollout in rollouts]
    finished = sum(rollout.completion.finish_reason == "stop" for rollout in rollouts)
    rewards = [rollout.reward for rollout in scored]
    parts = [sum(rollout.rewards.get(part, 0.0) for rollout in scored) for part in REWARD_PARTS]
    sums = [
        float(len(rollouts)),
        float(len(scored)),
        sum(rewards),
        sum(reward * reward for reward in rewards),
        float(sum(rollout.grade.correct for rollout in scored)),
        float(sum(lengths)),
        float(finished),
        *parts,
    ]
    totals = world.all_reduce_(torch.tensor(sums, dtype=torch.float64, device=world.device)).tolist()
    drawn, counted, reward, squares, correct, tokens, finished, *parts = totals
    counted = counted or 1.0
    mean = reward / counted
    return {
        rundir.REWARD: mean,
        rundir.REWARD_STD: max(0.0, squares / counted - mean * mean) ** 0.5,
        rundir.CORRECT: correct / counted,
        "masked": 1.0 - totals[1] / drawn,
        "completions": drawn,
        rundir.COMPLETION_TOKENS: tokens / drawn,
        "completion_tokens_max": _largest(max(lengths, default=0), world),
        rundir.FINISHED_SHARE: finished / drawn,
        **{f"reward_{part}": total / counted for part, total in zip(REWARD_PARTS, parts, strict=True)},
    }


def _largest(value: float, world: World) -> float:
    """Over ranks. The reduction only sums: each rank fills a place of its own."""
    places = torch.zeros(world.size, dtype=torch.float64, device=world.device)
    places[world.rank] = value
    return float(world.all_reduce_(places).amax())
