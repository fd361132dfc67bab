"""6 humans, 4 tigers: legs of each kind, then their sum."""

from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def notation(problem: Problem) -> str:
    return ", ".join(f"{count} {_plural(animal, count)}" for animal, count in problem.metadata["animals"].items())


def derive(problem: Problem, scribe: Scribe) -> str:
    legs = []
    for animal, count in problem.metadata["animals"].items():
        each = _legs_of(animal)
        legs.append(scribe.result(count * each))
        scribe.write(f"{count} {_plural(animal, count)}: {count}*{each}={legs[-1]}")
    return str(_add(legs, scribe))


def verify(problem: Problem, answer: str, scribe: Scribe) -> None:
    """Add up in the other order."""
    legs = [count * _legs_of(animal) for animal, count in problem.metadata["animals"].items()]
    if len(legs) == 1:
        scribe.write(f"{legs[0]}")
    _add(legs[::-1], scribe)


def _add(legs: list[int], scribe: Scribe) -> int:
    total, *rest = legs
    for more in rest:
        total = scribe.add(total, more)
    return total


def _plural(animal: str, count: int) -> str:
    return f"{animal}s" if count > 1 else animal


def _legs_of(animal: str) -> int:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS  # The library takes over a second to import.

    return ANIMALS[animal]
