"""Ones in binary: halve down to nothing and count the odd ones: 37=2*18+1, 18=2*9+0, ..."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return f"{problem.metadata['number']}"


def derive(problem: Problem, scribe: Scribe) -> str:
    number, ones = problem.metadata["number"], 0
    while number:
        half = scribe.result(number // 2)
        scribe.write(f"{number}=2*{half}+{number % 2}")
        ones += number % 2
        number = min(half, number - 1)  # A slip upward must not go on for ever.
    ones = scribe.result(ones)
    scribe.write(f"{'+'.join('1' * ones)}={ones}" if ones > 1 else f"{ones}")
    return str(ones)


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Write the number in binary and take its powers of two together."""
    number = problem.metadata["number"]
    powers = [2**place for place in range(number.bit_length() - 1, -1, -1) if number >> place & 1]
    scribe.write(f"{'+'.join(map(str, powers))}={number}")
