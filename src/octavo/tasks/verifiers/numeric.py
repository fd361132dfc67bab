"""Numbers within a tolerance, with units."""

from decimal import Decimal
from fractions import Fraction
from typing import Literal

from pydantic import Field

from octavo.config import Config
from octavo.errors import DataError
from octavo.tasks.quantities import DecimalSign, Quantity, parse_quantity
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class NumericConfig(Config):
    """One number, near enough to the gold answer, in its unit."""

    kind: Literal["numeric"] = "numeric"
    tolerance: float = Field(default=0.0, ge=0)
    """Allowed difference, inclusive."""
    tolerance_kind: Literal["mixed", "relative", "absolute"] = "mixed"
    """relative: times the gold answer; absolute: in the gold answer's unit; mixed: relative for gold answers above 1
    (or below -1), else absolute."""
    decimal: DecimalSign = "point"
    """point: 1,234.5; comma: 1.234,5 or 1 234,5; either: both, but 1,234 could be two numbers and is none."""
    units: Literal["none", "optional", "required"] = "none"
    """none: bare numbers only; required: an answer must name a unit where the gold one has one; optional: without a
    unit it is read in the gold answer's."""
    unit: str = ""
    """Unit of gold answers that name none."""
    convert: bool = True
    """0.0035 l is right where 3.5 ml is. Otherwise another unit is wrong."""


class NumericVerifier(Verifier):
    """|answer - gold| <= tolerance, in exact arithmetic."""

    foreign = False

    def __init__(self, config: NumericConfig) -> None:
        self._config = config

    def score(self, problem: Problem, answer: str) -> float:
        gold = self._gold(problem)
        got = parse_quantity(answer, self._config.decimal)
        if got is None or (got.unit and self._config.units == "none"):
            return 0.0
        if gold.unit and not got.unit and self._config.units != "required":
            got = Quantity(got.value, gold.unit)
        value = got.within(gold.unit, self._config.convert)
        return float(value is not None and abs(value - gold.value) <= self._allowed(gold.value))

    def check(self, problem: Problem) -> None:
        self._gold(problem)

    def gold_text(self, value: object) -> str | None:
        """Numbers of JSON have a point, whatever the sign in the text of answers."""
        if not isinstance(value, float) or self._config.decimal == "point":
            return super().gold_text(value)
        text = format(Decimal(repr(value)), "f")
        return text.replace(".", ",") if self._config.decimal == "comma" else text + "0" * ("." in text)

    def _allowed(self, gold: Fraction) -> Fraction:
        tolerance = Fraction(self._config.tolerance)
        match self._config.tolerance_kind:
            case "absolute":
                return tolerance
            case "relative":
                return tolerance * abs(gold)
            case "mixed":
                return tolerance * max(Fraction(1), abs(gold))

    def _gold(self, problem: Problem) -> Quantity:
        gold = parse_quantity(problem.answer, self._config.decimal)
        if gold is None:
            raise DataError(
                f"the numeric verifier needs a number as answer, got {problem.answer!r}; use verifier: exact"
                + (", or another `decimal`" if any(sign in problem.answer for sign in ",.") else "")
            )
        if gold.unit and self._config.units == "none":
            raise DataError(
                f"the numeric verifier needs a number as answer, got {problem.answer!r}, which has a unit; "
                "set units: required or optional"
            )
        return gold if gold.unit or self._config.units == "none" else Quantity(gold.value, self._config.unit)
