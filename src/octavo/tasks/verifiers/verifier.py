"""What judges answers: built from a config, without state, the same in this process and in a worker."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.tasks import answers
from octavo.tasks.types import Problem


class Verifier(ABC):
    """Scores answers to problems. Extra columns of a question's row stand in `problem.metadata`."""

    foreign: bool = True
    """May hang, crash or grow (foreign code, foreign patterns): it runs in a worker process, under a time limit."""
    limits_itself_seconds: float = 0.0
    """How long scoring may take by limits of its own; the time limit around it must be longer."""

    @abstractmethod
    def score(self, problem: Problem, answer: str) -> float:
        """Score a non-empty answer in [0, 1]. May raise or hang: whoever calls it guards it."""

    def check(self, problem: Problem) -> None:  # noqa: B027
        """Raise DataError, without a place, if this problem's row lacks what scoring needs. Runs no foreign code."""

    def gold_text(self, value: object) -> str | None:
        """A gold answer as a file gives it, as text; None for what this verifier cannot compare with."""
        return str(value) if isinstance(value, str | int | float) else None

    def prepare(self) -> None:  # noqa: B027
        """Load what scoring needs, before the clock runs. Raises GradingError if it cannot be had."""

    def together(self, golds: Sequence[str]) -> list[str]:
        """Ways to give several answers at once in the hope that one is taken; none may score (see `self_test`)."""
        return answers.several(golds)

    def record(self) -> Mapping[str, Any]:
        """What a run's manifest should say of how this verifier ran."""
        return {}
