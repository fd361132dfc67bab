"""Greatest common divisor by Euclid's division: 78=1*46+32, 46=1*32+14, ... until nothing remains."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return ", ".join(str(number) for number in problem.metadata["numbers"])


def derive(problem: Problem, scribe: Scribe) -> str:
    divisor, *rest = problem.metadata["numbers"]
    for number in rest:
        divisor = _euclid(max(divisor, number), min(divisor, number), scribe)
    return str(divisor)


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """It divides every number."""
    for number in problem.metadata["numbers"]:
        scribe.write(f"{number}/{answer}={number // int(answer)}")


def _euclid(larger: int, smaller: int, scribe: Scribe) -> int:
    # A slipped remainder may exceed the divisor; the next step then divides as it finds them, and still ends.
    while smaller:
        quotient, remainder = divmod(larger, smaller)
        remainder = scribe.result(remainder)
        scribe.write(f"{larger}={quotient}*{smaller}+{remainder}")
        larger, smaller = smaller, remainder
    return larger
