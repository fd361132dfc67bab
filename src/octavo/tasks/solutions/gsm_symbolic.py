"""Word problems made from templates (GSM-Symbolic, arXiv:2410.05229): the library writes the steps down itself."""

from fractions import Fraction

from octavo.errors import ConfigError
from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem

_ANSWER = "####"


def notation(problem: Problem) -> str:
    return " ".join(problem.question.split())


def derive(problem: Problem, scribe: Scribe) -> str:
    text, _, answer = problem.metadata["answer_cot"].rpartition(_ANSWER)
    for line in filter(None, map(str.strip, text.splitlines())):
        scribe.write(line.rstrip("."))
    number = Fraction(answer.strip())  # "80.0" where the answer is 80
    return str(scribe.result(int(number) if number.denominator == 1 else answer.strip()))


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    raise ConfigError("gsm_symbolic: its solutions cannot be checked by another route; take the style steps")
