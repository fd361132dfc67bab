"""Adds up the losses of a step's micro-batches, over all ranks."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from octavo import rundir
from octavo.losses.loss_sum import LossSum
from octavo.world import World


class Tally:
    """Of one optimizer step. Every rank adds at least one loss, with the same names."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._maxima: dict[str, float] = {}

    def add(self, loss: LossSum) -> None:
        """Count one micro-batch."""
        assert rundir.LOSS not in loss.sums, "the name is taken by the loss itself"
        self._sums[rundir.LOSS] += loss.loss_sum.item()
        if loss.balance_sum is not None:
            self._sums[rundir.BALANCE_LOSS] += loss.balance_sum.item()
        for name, value in loss.sums.items():
            self._sums[name] += value.item()
        for name, value in loss.maxima.items():
            self._maxima[name] = max(self._maxima.get(name, float("-inf")), value.item())

    def metrics(self, normalizer: float, tokens: float, world: World) -> dict[str, float]:
        """Means over the step (the balance loss over tokens, the others over the weight; 0 where nothing counts)."""
        names, maxima = sorted(self._sums), sorted(self._maxima)
        sums = world.all_reduce_(_vector([self._sums[name] for name in names], world))
        # The reduction only sums: each rank fills a row of its own.
        rows = torch.zeros(world.size, len(maxima), dtype=torch.float64, device=world.device)
        rows[world.rank] = _vector([self._maxima[name] for name in maxima], world)
        largest = world.all_reduce_(rows).amax(0)
        divisors = {rundir.BALANCE_LOSS: tokens}
        means = {
            name: _ratio(value, divisors.get(name, normalizer))
            for name, value in zip(names, sums.tolist(), strict=True)
        }
        return means | dict(zip(maxima, largest.tolist(), strict=True))


def _vector(values: list[float], world: World) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=world.device)


def _ratio(total: float, divisor: float) -> float:
    return total / divisor if divisor else 0.0
