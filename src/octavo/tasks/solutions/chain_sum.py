"""57 + 87 - 70: one sum at a time, from the left."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return problem.metadata["expression"]


def derive(problem: Problem, scribe: Scribe) -> str:
    total, *rest = _terms(problem)
    if not rest:
        total = scribe.result(total)
        scribe.write(f"{total}")
    for term in rest:
        total = scribe.add(total, term)
    return str(total)


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Undo the terms from the last to the first: the first must come out."""
    total = int(answer)
    for term in reversed(_terms(problem)[1:]):
        total = scribe.add(total, -term)
    if not scribe.lines:
        scribe.write(f"{total}")


def _terms(problem: Problem) -> list[int]:
    """Signed terms; the expression reads "5 - -3 + 2"."""
    first, *rest = problem.metadata["expression"].split()
    signs, numbers = rest[::2], rest[1::2]
    return [int(first)] + [int(n) if sign == "+" else -int(n) for sign, n in zip(signs, numbers, strict=True)]
