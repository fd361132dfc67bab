"""From one base to another: Horner's rule up to decimal, repeated division down from it."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def notation(problem: Problem) -> str:
    digits, source, target = _operands(problem)
    return f"{digits} ({source} -> {target})"


def derive(problem: Problem, scribe: Scribe) -> str:
    source, base, target = _operands(problem)
    value = _to_decimal(source, base, scribe)
    if target == 10:
        return str(value)
    return _from_decimal(value, target, scribe)


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Go back up from the answer: the same decimal value."""
    _, _, target = _operands(problem)
    if target == 10:
        scribe.write(answer)
    else:
        _to_decimal(answer, target, scribe)


def _operands(problem: Problem) -> tuple[str, int, int]:
    metadata = problem.metadata
    # The library writes zero as nothing in most bases.
    return metadata["source_repr"] or "0", metadata["source_base"], metadata["target_base"]


def _to_decimal(digits: str, base: int, scribe: Scribe) -> int:
    value = _DIGITS.index(digits[0])
    if base == 10:
        return int(digits)
    if len(digits) == 1:
        value = scribe.result(value)
        scribe.write(f"{digits}={value}")
    for digit in digits[1:]:
        line = f"{value}*{base}+{_DIGITS.index(digit)}"
        value = scribe.result(value * base + _DIGITS.index(digit))
        scribe.write(f"{line}={value}")
    return value


def _from_decimal(value: int, base: int, scribe: Scribe) -> str:
    digits = ""
    while True:
        quotient = value // base
        right = value - quotient * base
        remainder = scribe.result(right)
        if remainder >= base:  # A slip by a multiple of the base would be none.
            remainder = (right + 1) % base
        scribe.write(f"{value}={quotient}*{base}+{remainder}")
        digits = _DIGITS[remainder] + digits
        value = quotient
        if value == 0:
            return digits
