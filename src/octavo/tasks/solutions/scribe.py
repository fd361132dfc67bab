"""What a derivation is written with: lines of work, in which one result may go wrong on purpose."""

import random
from dataclasses import dataclass, field
from typing import TypeVar

Value = TypeVar("Value", int, str)


@dataclass
class Scribe:
    """Collects the lines of a derivation. Every computed result passes through `result`, where a slip can be planted.

    `slip_at` is the number (from 0) of the result that goes wrong; what follows is computed from the wrong value, as a
    writer who has not noticed would.
    """

    rng: random.Random
    slip_at: int | None = None
    long: bool = False
    """Write sums and products out by places, 47+38=70+15=85, instead of doing them in the head."""
    lines: list[str] = field(default_factory=list)
    results: int = 0
    slipped_line: int | None = None

    def result(self, value: Value) -> Value:
        """Return the value, or a plausible wrong one if this is where the slip is."""
        at = self.results
        self.results += 1
        if at != self.slip_at:
            return value
        self.slipped_line = len(self.lines)
        return slip(value, self.rng)

    def add(self, left: int, right: int) -> int:
        """Write left + right as one line and return what it comes to."""
        sum_, place = f"{left}{signed(right)}", 10 if min(abs(left), abs(right)) < 100 else 100
        if self.long and min(abs(left), abs(right)) >= 10:
            high = self.result(_high(left, place) + _high(right, place))
            low = self.result(_low(left, place) + _low(right, place))
            sum_ += f"={high}{signed(low)}"
            total = self.result(high + low)
        else:
            total = self.result(left + right)
        self.write(f"{sum_}={total}")
        return total

    def multiply(self, left: int, right: int) -> int:
        """Write left * right (neither negative) as one line and return what it comes to."""
        product = f"{left}*{right}"
        if self.long and left >= 10 and left % 10:
            high, low = self.result(_high(left, 10) * right), self.result(_low(left, 10) * right)
            product += f"={high}+{low}"
            total = self.result(high + low)
        else:
            total = self.result(left * right)
        self.write(f"{product}={total}")
        return total

    def write(self, line: str) -> None:
        """Append one line of work (without a full stop)."""
        self.lines.append(line)


def signed(number: int) -> str:
    """The number as it stands inside a sum: with its sign in front."""
    return f"+{number}" if number >= 0 else f"{number}"


def slip(value: Value, rng: random.Random) -> Value:
    """Return a plausible wrong value: off by one or ten, a wrong digit; in text a wrong, missing or swapped letter."""
    if isinstance(value, int):
        return _slip_number(value, rng)
    return _slip_text(value, rng)


def _high(number: int, place: int) -> int:
    """-47, 10 -> -40."""
    return number - _low(number, place)


def _low(number: int, place: int) -> int:
    """-47, 10 -> -7."""
    return abs(number) % place * (-1 if number < 0 else 1)


def _slip_number(value: int, rng: random.Random) -> int:
    size = abs(value)
    wrong = [size + 1, size + 10 if size >= 10 else size + 2]
    if size >= 1:
        wrong.append(size - 1)
    if size >= 20:
        wrong.append(size - 10)
    if size >= 10:
        place = 10 ** rng.randrange(len(str(size)) - 1)  # Any digit but the first.
        digit = size // place % 10
        wrong.append(size + (rng.choice([d for d in range(10) if d != digit]) - digit) * place)
    return rng.choice(wrong) * (-1 if value < 0 else 1)


def _slip_text(value: str, rng: random.Random) -> str:
    """A wrong word or digit string of at least one character, differing from `value`."""
    swaps = [i for i in range(len(value) - 1) if value[i].casefold() != value[i + 1].casefold()]
    if swaps and rng.random() < 0.7:
        i = rng.choice(swaps)
        return value[:i] + value[i + 1] + value[i] + value[i + 2 :]
    i = rng.randrange(len(value))
    return value[:i] + value[i] + value[i:]  # A letter doubled.
