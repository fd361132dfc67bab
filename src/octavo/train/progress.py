"""What training tells the outside while it works. Training prints nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """One finished optimizer step. `metrics` is its row of metrics.jsonl."""

    stage: str
    step: int
    """Steps finished, this one included."""
    steps: int
    tokens: int
    """Tokens read so far, over all ranks, by the whole stage."""
    seconds_left: float
    metrics: Mapping[str, float]


class Observer(Protocol):
    """Whoever wants to know. Called on the main rank only."""

    def on_step(self, progress: Progress) -> None: ...

    def on_warning(self, text: str) -> None:
        """One sentence that the user should see."""
        ...


class Silent:
    """An observer that does nothing."""

    def on_step(self, progress: Progress) -> None:
        pass

    def on_warning(self, text: str) -> None:
        pass
