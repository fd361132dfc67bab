"""37 * 46: split the second factor by its digits, multiply, add."""

import math

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return problem.metadata["expression"]


def derive(problem: Problem, scribe: Scribe) -> str:
    first, *rest = _factors(problem)
    magnitude = abs(first)
    if not rest:
        magnitude = scribe.result(magnitude)
        scribe.write(f"{magnitude}")
    for factor in rest:
        magnitude = _multiply(magnitude, abs(factor), scribe)
    # Minus signs are counted at the end, so that the work is on positive numbers.
    negative = sum(factor < 0 for factor in (first, *rest)) % 2 == 1 and magnitude != 0
    return f"-{magnitude}" if negative else f"{magnitude}"


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """The last digit of a product comes from the last digits of its factors."""
    digits = [abs(factor) % 10 for factor in _factors(problem)]
    scribe.write(f"{'*'.join(map(str, digits))}={math.prod(digits)}, {abs(int(answer))} ~ {answer[-1]}")


def _multiply(left: int, right: int, scribe: Scribe) -> int:
    if right < 10 <= left:
        return _sum_of_parts([(part, right) for part in _parts(left)], scribe)
    return _sum_of_parts([(left, part) for part in _parts(right)], scribe)


def _sum_of_parts(pairs: list[tuple[int, int]], scribe: Scribe) -> int:
    products = []
    for left, right in pairs:
        products.append(scribe.multiply(left, right))
    total, *rest = products
    for product in rest:
        total = scribe.add(total, product)
    return total


def _parts(number: int) -> list[int]:
    """46 -> [40, 6]; 40 -> [40]; 0 -> [0]."""
    digits = str(number)
    parts = [int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits)]
    return [part for part in parts if part] or [0]


def _factors(problem: Problem) -> list[int]:
    return [int(number) for number in problem.metadata["expression"].split(" * ")]
