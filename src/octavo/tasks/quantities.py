"""Numbers with units as people write them: 3.5 ml, 0,5 mg/kg, 1 200,50 kr, R$ 3,50. Conversion by pint, exactly."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from octavo.tasks import answers

if TYPE_CHECKING:
    from pint import UnitRegistry

DecimalSign = Literal["point", "comma", "either"]

_LATEX_WRAPPER = re.compile(r"\\(?:text|mathrm|textrm|operatorname)\s*\{([^{}]*)\}")
_LATEX_SPACE = re.compile(r"\\[,;: ]|~")
_GROUPS = re.compile(r"(?<![\d.,])([+-]?\d{1,3})((?:[ '’]\d{3})+)(?![\d])")
_NUMBER = r"[+-]?(?:\\[dt]?frac\{\d+\}\{\d+\}|[\d.,]+(?:[eE][+-]?\d+)?(?:\s*/\s*\d+)?)"
_CURRENCY = r"[A-Z]{3}|[A-Z]{0,3}[$€£¥₦₱₹₨₩]"
_QUANTITY = re.compile(rf"(?P<before>{_CURRENCY})?\s*(?P<number>{_NUMBER})\s*(?P<after>[^\d\s.,+\-].*)?", re.DOTALL)
# Names, each with an exponent of one digit at most: no unit needs more, and powers of powers could be made to hang.
_ONE_UNIT = r"[^\W\d_]+(?:\*\*-?[1-9])?|%|°[CF]?"
_UNIT = re.compile(rf"(?:{_ONE_UNIT})(?:(?: ?[*/] ?| )(?:{_ONE_UNIT}))*")
_MAX_UNIT_CHARACTERS = 40


@dataclass(frozen=True)
class Quantity:
    """An exact number and the unit behind it, "" if there is none."""

    value: Fraction
    unit: str = ""

    def within(self, unit: str, convert: bool) -> Fraction | None:
        """The number in another unit; None where that cannot be: another dimension, an unknown unit, `convert` off."""
        if self.unit == unit:
            return self.value
        return _converted(self.value, self.unit, unit) if convert and self.unit and unit else None


def parse_quantity(text: str, decimal: DecimalSign = "point") -> Quantity | None:
    """Read one number with at most one unit, and nothing else; None if it is anything else.

    `decimal` is what stands before the decimals. With "comma" the point may part thousands; a space may, unless it is
    "point". With "either" both are read, and a number that would then be two (1,234) is none.
    """
    text = answers.clean(text)
    text = _LATEX_SPACE.sub(" ", _LATEX_WRAPPER.sub(r"\1", text)).replace("\\%", "%").replace("\\$", "$")
    text = unicodedata.normalize("NFKC", text.replace("²", "**2").replace("³", "**3")).replace("−", "-")
    if decimal != "point":
        text = _GROUPS.sub(lambda match: match[1] + re.sub(r"[ '’]", "", match[2]), text)
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match["before"] and match["after"]):
        return None
    value = parse_number(match["number"], decimal)
    unit = _tidy(match["before"] or match["after"] or "")
    return None if value is None or unit is None else Quantity(value, unit)


def parse_number(text: str, decimal: DecimalSign = "point") -> Fraction | None:
    """`answers.parse_number` with another decimal sign."""
    pointed = answers.parse_number(text) if decimal != "comma" else None
    swapped = answers.parse_number(text.translate({ord(","): ".", ord("."): ","})) if decimal != "point" else None
    readings = {value for value in (pointed, swapped) if value is not None}
    return readings.pop() if len(readings) == 1 else None


def _tidy(unit: str) -> str | None:
    """One way of writing a unit, or None for what is no unit."""
    unit = " ".join(unit.split()).rstrip(".")
    unit = re.sub(r" per ", "/", unit).replace("·", "*").replace("⋅", "*").replace("^", "**")
    if len(unit) > _MAX_UNIT_CHARACTERS:
        return None
    return unit if not unit or _UNIT.fullmatch(unit) or re.fullmatch(_CURRENCY, unit) else None


@lru_cache(maxsize=4096)
def _converted(value: Fraction, unit: str, other: str) -> Fraction | None:
    from pint.errors import PintError

    registry = _registry()
    try:
        quantity = registry.Quantity(value, registry.parse_units(unit))
        return Fraction(quantity.to(registry.parse_units(other)).magnitude)
    except (PintError, ValueError, ArithmeticError):  # unknown, of another dimension, not a unit after all
        return None


@lru_cache(maxsize=1)
def _registry() -> "UnitRegistry":
    import pint  # Takes half a second to import, and as much to read its definitions: only where a unit differs.

    registry = pint.UnitRegistry(non_int_type=Fraction)  # pyright: ignore[reportArgumentType]
    registry.define("international_unit = [biological_activity] = IU")
    return registry
