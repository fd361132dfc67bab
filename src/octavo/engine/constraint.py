"""What a sequence may say next: token masks that a request brings along, applied before the draw.

Shapes: `B` rows, `V` vocabulary, `C` constrained rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class Constraint(ABC):
    """State of one sequence: asked before each draw, told after it. Called by the thread that drives the engine."""

    @abstractmethod
    def allowed_V(self) -> np.ndarray | None:
        """Which tokens may come next, bool [vocabulary], at least one of them; None: all."""

    @abstractmethod
    def advance(self, token: int) -> None:
        """A token was drawn."""


Constrain = Callable[[], Constraint]
"""Makes the constraint of each sample of a request."""


def constrained(logits_BV: Tensor, constraints: Sequence[Constraint | None]) -> Tensor:
    """The logits to draw from: -inf where the row's constraint forbids. `logits_BV` itself if nothing is forbidden."""
    masks = [(row, mask) for row, each in enumerate(constraints) if each and (mask := each.allowed_V()) is not None]
    if not masks:
        return logits_BV
    rows_C = torch.tensor([row for row, _ in masks], device=logits_BV.device)
    forbidden_CV = torch.from_numpy(~np.stack([mask for _, mask in masks])).to(logits_BV.device)
    return logits_BV.index_copy(0, rows_C, logits_BV[rows_C].masked_fill(forbidden_CV, -torch.inf))
