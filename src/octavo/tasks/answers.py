"""Reading and comparing answers: the one place, for evaluation and for reward alike."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction

_BOXED = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
# Longer digit strings are compared as text: no verifier needs them, and exact arithmetic on them could be made to hang.
_MAX_NUMBER_CHARACTERS = 400


def clean(text: str) -> str:
    r"""Strip white space and wrappers around the whole answer: \boxed{...}, $...$, \(...\). The content is kept."""
    text = text.strip()
    while True:
        inner = text
        if boxed := _BOXED.fullmatch(inner):
            inner = boxed[1]
        elif len(inner) >= 2 and inner[0] == inner[-1] == "$":
            inner = inner.strip("$")
        elif inner.startswith("\\(") and inner.endswith("\\)"):
            inner = inner[2:-2]
        inner = inner.strip()
        if inner == text:
            return text
        text = inner


def parse_number(text: str) -> Fraction | None:
    r"""Read one number and nothing else: 42, +42.0, 1,234, −5, 3/4, \frac{3}{4}, 1.5e3. None if it is anything else."""
    text = clean(text)
    if not text or len(text) > _MAX_NUMBER_CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", text).replace("−", "-")
    text = _LATEX_FRACTION.sub(r"\1\2/\3", text)
    top, slash, bottom = text.partition("/")
    numerator = _parse_decimal(top.strip())
    if not slash or numerator is None:
        return numerator
    denominator = _parse_decimal(bottom.strip())
    return numerator / denominator if denominator else None


def normalize(text: str) -> str:
    """Canonical form in which equal answers are equal strings: numbers by value, other text by words without case."""
    number = parse_number(text)
    if number is not None:
        return str(number)
    return " ".join(unicodedata.normalize("NFKC", clean(text)).casefold().split())


def exact_match(answer: str, gold: str) -> bool:
    """Equal after `normalize`."""
    return normalize(answer) == normalize(gold)


def numeric_match(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    """Both are numbers and |answer - gold| <= tolerance * max(1, |gold|), in exact arithmetic."""
    got, expected = parse_number(answer), parse_number(gold)
    if got is None or expected is None:
        return False
    return abs(got - expected) <= Fraction(tolerance) * max(Fraction(1), abs(expected))


def math_match(answer: str, gold: str) -> bool:
    """Equal as mathematics (math-verify: LaTeX, expressions, sets, intervals). Slow: call it within a time limit."""
    if exact_match(answer, gold):
        return True
    from math_verify import parse, verify  # Takes a second to import: only where it is used.

    # math-verify's own limits are off: they use the one alarm of the process, which `call_within` holds.
    expected = parse(f"${clean(gold)}$", parsing_timeout=0, raise_on_error=True)
    got = parse(f"${clean(answer)}$", parsing_timeout=0, raise_on_error=True)
    return bool(verify(expected, got, timeout_seconds=0, raise_on_error=True))


def several(golds: Sequence[str]) -> list[str]:
    """Ways of giving several answers at once, in the hope that one of them is taken."""
    return [separator.join(golds) for separator in ("\n", ", ", " ", " or ")]


def _parse_decimal(text: str) -> Fraction | None:
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not _DECIMAL.fullmatch(text):
        return None
    try:
        return Fraction(Decimal(text))
    except InvalidOperation:
        return None
