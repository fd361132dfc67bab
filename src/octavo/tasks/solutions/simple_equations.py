"""56 - 98*e = -1218: move the constant over, divide by the coefficient."""

import re

from octavo.tasks.solutions.scribe import Scribe, signed
from octavo.tasks.types import Problem

_TERM = re.compile(r"([+-]?)(?:(\d+)\*)?([a-z]|\d+)")


def notation(problem: Problem) -> str:
    return problem.metadata["equation"]


def derive(problem: Problem, scribe: Scribe) -> str:
    variable = problem.metadata["variable"]
    coefficient, constant, right = _read(problem)
    if coefficient < 0:  # 56-98*e=-1218 -> 98*e=56+1218
        coefficient, moved = -coefficient, f"{constant}{signed(-right)}" if constant else ""
        right = constant - right
    else:
        moved = f"{right}{signed(-constant)}" if constant else ""
        right -= constant
    left = variable if coefficient == 1 else f"{coefficient}*{variable}"
    if moved or coefficient == 1:
        right = scribe.result(right)
        scribe.write(f"{left}={moved}={right}" if moved else f"{left}={right}")
    if coefficient == 1:
        return str(right)
    # After a slip the division leaves a rest; a writer who has not noticed rounds it away.
    value = scribe.result(right // coefficient)
    scribe.write(f"{variable}={right}/{coefficient}={value}")
    return str(value)


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Put the value in."""
    coefficient, constant, _ = _read(problem)
    product = coefficient * int(answer)
    scribe.write(f"{coefficient}*{answer}={product}")
    if constant:
        scribe.write(f"{product}{signed(constant)}={product + constant}")


def _read(problem: Problem) -> tuple[int, int, int]:
    """(a, b, c) of the equation a*x + b = c, whatever the order of its terms."""
    left, right = problem.metadata["equation"].replace(" ", "").split("=")
    coefficient = constant = 0
    for sign, factor, term in _TERM.findall(left):
        unit = -1 if sign == "-" else 1
        if term.isdecimal():
            constant += unit * int(term)
        else:
            coefficient += unit * int(factor or 1)
    return coefficient, constant, int(right)
