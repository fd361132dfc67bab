"""A pattern that the whole answer must match. Runs in a worker: a pattern can be made to take for ever."""

import re
from typing import Literal

from pydantic import Field, field_validator

from octavo.config import Config
from octavo.errors import DataError
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class RegexConfig(Config):
    """A regular expression (Python's `re`) that matches the whole answer and nothing less."""

    kind: Literal["regex"] = "regex"
    pattern: str | None = None
    """The same for all questions. Otherwise each row has its own, in the column `column`."""
    column: str = Field(default="pattern", min_length=1)
    """Column of a row's own pattern, which goes before `pattern`."""
    ignore_case: bool = False
    """Capitals do not matter."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression ({error}): {pattern!r}") from error
        return pattern


class RegexVerifier(Verifier):
    """`re.fullmatch` of the answer. Of the gold answer only the self-test asks whether it matches."""

    def __init__(self, config: RegexConfig) -> None:
        self._config = config

    def score(self, problem: Problem, answer: str) -> float:
        flags = re.IGNORECASE if self._config.ignore_case else 0
        return float(re.fullmatch(self._pattern(problem), answer, flags) is not None)

    def check(self, problem: Problem) -> None:
        try:
            re.compile(self._pattern(problem))
        except re.error as error:
            raise DataError(f"{self._config.column} is not a regular expression ({error})") from error

    def _pattern(self, problem: Problem) -> str:
        pattern = problem.metadata.get(self._config.column, self._config.pattern)
        if not isinstance(pattern, str):
            raise DataError(
                f"the regex verifier needs a pattern in the column {self._config.column!r} or in its config, "
                f"got {pattern!r}"
            )
        return pattern
