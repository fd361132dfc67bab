"""Is it the right dose? The verifier of the dose questions: `--verifier examples/nairobi/dose.py:score`.

Where all numbers are there, the answer must be the right amount in mg or ml (another unit of the same kind will do, as
0.0084 l). Where one is missing, the answer must say which, in the language of the question; an amount is then wrong.
"""

from octavo.tasks.answers import exact_match
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.numeric import NumericConfig, NumericVerifier

# A thousandth is for roundings of the last digit only: a dose that is off by a per cent is wrong.
AMOUNT = NumericVerifier(NumericConfig(units="required", tolerance=0.001, tolerance_kind="relative"))


def score(question: str, answer: str, gold: str, missing: str) -> bool:
    """`missing` is the column of that name: weight, dose, strength, or empty."""
    if missing:
        return exact_match(answer.rstrip("."), gold.rstrip("."))
    return AMOUNT.score(Problem("", "dose", question, gold), answer) == 1.0
