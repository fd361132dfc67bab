"""Spell a word, then its letters from the last to the first."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return problem.metadata["word"]


def derive(problem: Problem, scribe: Scribe) -> str:
    letters = scribe.result(problem.metadata["word"])
    scribe.write(" ".join(letters))
    backward = scribe.result(letters[::-1])
    scribe.write(" ".join(backward))
    return backward


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Read the answer backward: the word must come out."""
    scribe.write(" ".join(answer[::-1]))
