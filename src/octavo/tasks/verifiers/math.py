"""Equality as mathematics: LaTeX, expressions, sets, intervals."""

from typing import Literal

from octavo.config import Config
from octavo.tasks import answers
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class MathConfig(Config):
    """Equal as mathematics (math-verify)."""

    kind: Literal["math"] = "math"


class MathVerifier(Verifier):
    """`answers.math_match` with the gold answer."""

    def score(self, problem: Problem, answer: str) -> float:
        return float(answers.math_match(answer, problem.answer))

    def prepare(self) -> None:
        answers.math_match("2x", "x + x")  # the first call imports sympy and builds its parser
