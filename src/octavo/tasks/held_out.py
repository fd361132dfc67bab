"""Which problems are held out: decided by their operands, so that no wording, order or seed can leak one into training.

A problem's *operand key* holds what must be worked with (numbers, animals, a word) without order and wording. The key's
hash alone says whether the problem is held out. It is the same for every task label, stage, seed and run: what one
stage is measured on, no other stage has trained on. (A held-out sum may still occur as an intermediate step of a larger
training problem, as it would in any text.)
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from octavo.tasks.types import Split

# A constant and no config field: two stages with different shares would leak held-out problems into each other.
HELD_OUT_SHARE = 0.15

_NUMBER = re.compile(r"-?\d+")


def split_of(kind: str, key: str) -> Split:
    """Assign an operand key of one kind of task (dataset name) to a split: a function of the text alone."""
    digest = hashlib.sha256(f"held-out\0{kind}\0{key}".encode()).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64 else "train"


def operand_key(kind: str, question: str, answer: str, metadata: Mapping[str, Any]) -> str:
    """Operands of a problem without order and wording; of an unknown task the whole question and answer, normalized."""
    known = _OPERANDS.get(kind)
    if known is None:
        return " ".join(f"{question} {answer}".casefold().split())
    return known(metadata)


def _numbers_in(field: str) -> Callable[[Mapping[str, Any]], str]:
    """Multiset of the magnitudes in an expression: 12 - 7, 7 + 12 and 7 - 12 are one combination."""
    return lambda metadata: " ".join(map(str, sorted(abs(int(text)) for text in _NUMBER.findall(metadata[field]))))


def _sorted_numbers(metadata: Mapping[str, Any]) -> str:
    return " ".join(map(str, sorted(metadata["numbers"])))


def _animals(metadata: Mapping[str, Any]) -> str:
    return " ".join(f"{count} {animal}" for animal, count in sorted(metadata["animals"].items()))


_OPERANDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "basic_arithmetic": _numbers_in("expression"),
    "chain_sum": _numbers_in("expression"),
    "products": _numbers_in("expression"),
    "simple_equations": _numbers_in("equation"),
    "gcd": _sorted_numbers,
    "lcm": _sorted_numbers,
    "leg_counting": _animals,
    "spell_backward": lambda metadata: metadata["word"].casefold(),
    "count_bits": lambda metadata: str(metadata["number"]),
    "base_conversion": lambda metadata: str(metadata["decimal_value"]),
}
