"""The verifier of a reasoning-gym task, for rows exported from it (or written in its way)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from octavo.config import Config
from octavo.errors import ConfigError, DataError
from octavo.tasks.gym import ReasoningGymConfig, create_dataset, score_entry
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class GymVerifierConfig(Config):
    """reasoning-gym's own verifier of one of its tasks."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    name: str | None = None
    """Task; otherwise each row names its own, as the library does, in its metadata's source_dataset."""
    column: str = Field(default="metadata", min_length=1)
    """Column with the library's metadata of the problem."""


class GymVerifier(Verifier):
    """Scores by the metadata that the library wrote down with the problem; partial scores are its own."""

    def __init__(self, config: GymVerifierConfig) -> None:
        self._config = config

    def score(self, problem: Problem, answer: str) -> float:
        name, metadata = self._entry(problem)
        return score_entry(name, _dataset(name), problem.question, problem.answer, metadata, answer)

    def check(self, problem: Problem) -> None:
        name, _ = self._entry(problem)
        try:
            _dataset(name)
        except ConfigError as error:
            raise DataError(str(error)) from error

    def prepare(self) -> None:
        if self._config.name is not None:
            _dataset(self._config.name)

    def _entry(self, problem: Problem) -> tuple[str, Mapping[str, Any]]:
        metadata = problem.metadata.get(self._config.column)
        if not isinstance(metadata, Mapping):
            raise DataError(
                f"the reasoning_gym verifier needs the problem's metadata in the column {self._config.column!r}, "
                f"got {metadata!r}"
            )
        name = self._config.name or metadata.get("source_dataset")
        if not isinstance(name, str):
            raise DataError(f"{self._config.column}.source_dataset must name a reasoning-gym task, got {name!r}")
        return name, metadata


@lru_cache(maxsize=32)
def _dataset(name: str) -> Any:
    return create_dataset(ReasoningGymConfig(name=name))
