"""Adds up the losses of a step's micro-batches, over all ranks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo import rundir
from octavo.losses.loss_sum import LossSum
from octavo.world import World


@dataclass(frozen=True)
class Divisors:
    """What the sums of a step are divided by; each is itself a sum over micro-batches and ranks."""

    normalizer: float
    """Of the loss: the weight, unless the trainer has another."""
    weight: float
    """Of the statistics."""
    tokens: float
    """Of the balance loss: tokens read."""

    def objective(self, loss: LossSum) -> Tensor:
        """What a micro-batch adds to the objective of the step."""
        # Where nothing counts, the sums are 0: the divisor 1 keeps them so.
        total = loss.loss_sum / (self.normalizer or 1.0)
        if loss.auxiliary_sum is not None:
            total = total + loss.auxiliary_sum / (self.normalizer or 1.0)
        if loss.balance_sum is not None:
            total = total + loss.balance_sum / (self.tokens or 1.0)
        return total


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

    def metrics(self, divisors: Divisors, world: World) -> dict[str, float]:
        """Means over the step and all ranks, and maxima; the loss alone, 0, where nothing counts."""
        if not divisors.weight:
            return {rundir.LOSS: 0.0}
        names, maxima = sorted(self._sums), sorted(self._maxima)
        sums = world.all_reduce_(_vector([self._sums[name] for name in names], world))
        # The reduction only sums: each rank fills a row of its own.
        rows = torch.zeros(world.size, len(maxima), dtype=torch.float64, device=world.device)
        rows[world.rank] = _vector([self._maxima[name] for name in maxima], world)
        largest = world.all_reduce_(rows).amax(0)
        special = {rundir.LOSS: divisors.normalizer, rundir.BALANCE_LOSS: divisors.tokens}
        means = {
            name: value / special.get(name, divisors.weight) for name, value in zip(names, sums.tolist(), strict=True)
        }
        return means | dict(zip(maxima, largest.tolist(), strict=True))


def _vector(values: list[float], world: World) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=world.device)
