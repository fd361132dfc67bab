"""Python code, judged by unit tests that run in a sandbox."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from octavo.config import Config
from octavo.errors import DataError
from octavo.tasks.sandbox import SandboxLimits, find_isolation, run_tests
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)\n?```", re.DOTALL)


class CodeConfig(Config):
    """Unit tests of a row decide on the code that answers it."""

    kind: Literal["code"] = "code"
    column: str = Field(default="tests", min_length=1)
    """Column with the tests, one text or a list: assertions about the solution's names, functions test_..., unittest's
    classes, or HumanEval's check(candidate). The standard library is there, other packages are not."""
    entry_point_column: str = Field(default="entry_point", min_length=1)
    """Column with the name that HumanEval's check is called with; a row need not have it."""
    partial: bool = False
    """Score the share of tests passed, instead of all or nothing."""
    limits: SandboxLimits = SandboxLimits()
    """What the code may use."""


class CodeVerifier(Verifier):
    """1 if all tests pass. Code that crashes, ends itself or uses too much has failed its tests: 0."""

    def __init__(self, config: CodeConfig) -> None:
        self._config = config
        self.limits_itself_seconds = config.limits.wall_seconds

    def score(self, problem: Problem, answer: str) -> float:
        code = _FENCE.fullmatch(answer.strip())
        source = code[1] if code else answer
        try:
            compile(source, "solution.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return 0.0  # prose, most often: no need to start anything
        entry_point = problem.metadata.get(self._config.entry_point_column)
        verdict = run_tests(source, self._tests(problem), entry_point, self._config.limits)
        return sum(verdict.results) / len(verdict.results) if self._config.partial else float(verdict.passed)

    def check(self, problem: Problem) -> None:
        for number, test in enumerate(self._tests(problem)):
            try:
                compile(test, "test.py", "exec")
            except (SyntaxError, ValueError) as error:
                raise DataError(f"{self._config.column}: test {number} is no Python: {error}") from error

    def prepare(self) -> None:
        find_isolation()

    def together(self, golds: Sequence[str]) -> list[str]:
        """Text and blocks; not one program of all, which would be right if it holds the right one."""
        return ["\n".join(f"```python\n{gold}\n```" for gold in golds), " or ".join(golds)]

    def record(self) -> Mapping[str, Any]:
        return {"sandbox": dataclasses.asdict(find_isolation()), "limits": self._config.limits.dump()}

    def _tests(self, problem: Problem) -> list[str]:
        tests = problem.metadata.get(self._config.column)
        if isinstance(tests, str):
            tests = [tests]
        if (
            not isinstance(tests, list)
            or not tests
            or not all(isinstance(test, str) and test.strip() for test in tests)
        ):
            raise DataError(
                f"the code verifier needs tests in the column {self._config.column!r}, a text or a list of texts, "
                f"got {str(tests)[:60]!r}"
            )
        return tests
