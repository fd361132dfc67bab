"""The same text or the same number."""

from typing import Literal

from octavo.config import Config
from octavo.errors import DataError
from octavo.tasks import answers
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class ExactConfig(Config):
    """Same words, whatever the capitals and spaces, or the same number."""

    kind: Literal["exact"] = "exact"


class ExactVerifier(Verifier):
    """`answers.exact_match` with the gold answer."""

    foreign = False

    def score(self, problem: Problem, answer: str) -> float:
        return float(answers.exact_match(answer, problem.answer))

    def check(self, problem: Problem) -> None:
        if not problem.answer.strip():
            raise DataError("the exact verifier needs an answer to compare with, and there is none")
