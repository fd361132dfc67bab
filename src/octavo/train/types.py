"""What the loop is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field

from octavo.config import Config
from octavo.data.batch import Batch
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.schedule import ScheduleConfig


class LoopConfig(Config):
    """The loop, whatever is trained."""

    steps: int = Field(gt=0)
    """Optimizer steps; fewer if the stream ends before."""
    minutes: float | None = Field(default=None, gt=0)
    """Stop after so long (interruptions apart), if `steps` are not done before; the schedule is stretched to fit.
    Such a run cannot be repeated bit for bit: how many steps it makes is the machine's business."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Course of the learning rate over the steps."""
    clip_norm: float = Field(default=1.0, gt=0)
    """A gradient whose global norm is larger is scaled down to it."""
    bias_rate: float = Field(default=1e-3, ge=0)
    """Step of the routers' bias towards even expert load, after each optimizer step."""
    bias_freeze_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps, at the end, in which the bias rests."""
    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    checkpoint_every_seconds: float | None = Field(default=60.0, gt=0)
    """A checkpoint is written when either is due, and at the end."""
    evaluate_every_steps: int | None = Field(default=None, gt=0)
    """Score held-out problems before the first step, so often, and at the end, and give back the best weights; None:
    the last weights."""


class Stream(Protocol):
    """What is trained on: each item is this rank's micro-batches of one optimizer step."""

    def __iter__(self) -> Iterator[list[Batch]]: ...

    def __next__(self) -> list[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


LossFunction = Callable[[Transformer, Batch, float], LossSum]
"""(model, micro-batch, share of the steps done before this one) -> sums."""


@dataclass(frozen=True)
class HeldOut:
    """How weights are judged: `score` is called with the model as it is; higher is better."""

    metric: str
    score: Callable[[], float]


@dataclass(frozen=True)
class FitResult:
    """What came out. The model holds the best weights if there was a held-out score, else the last."""

    step: int
    tokens: int
    """Tokens read, over all ranks, including earlier pieces of a resumed run."""
    best_step: int | None = None
    best_score: float | None = None
