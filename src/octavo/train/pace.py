"""How long a training has taken, and how many steps its minutes allow."""

from __future__ import annotations

import time
from typing import Any

import torch

from octavo.world import World


class Pace:
    """Wall clock of a training over its pieces: interruptions apart, up to the last checkpoint of each.

    What comes before the first step (scoring the weights that training begins with) takes its part of the minutes, but
    says nothing of how long a step takes.
    """

    def __init__(self, steps: int, minutes: float | None, world: World) -> None:
        self._steps, self._minutes, self._world = steps, minutes, world
        self._before = self._opening = 0.0
        self._began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds(), "opening_seconds": self._opening}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before, self._opening = state["seconds"], state.get("opening_seconds", 0.0)
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Of all pieces."""
        return self._before + time.monotonic() - self._began

    def open(self) -> None:
        """The first step begins now."""
        self._opening = self.seconds()

    def planned_steps(self, step: int) -> int:
        """How many steps there will be, `step` of which are done: the same number on all ranks."""
        if self._minutes is None or step == 0:
            return self._steps
        own = torch.tensor([self.seconds(), self._opening], dtype=torch.float64, device=self._world.device)
        seconds, opening = (self._world.all_reduce_(own) / self._world.size).tolist()
        affordable = int(step * (self._minutes * 60 - opening) / (seconds - opening))
        return min(self._steps, max(step, affordable))

    def seconds_left(self, step: int, planned_steps: int) -> float:
        """For the steps that are left, at the pace so far."""
        return (planned_steps - step) * (self.seconds() - self._opening) / step
