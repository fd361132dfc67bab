"""The same problem as somebody types it: a model that has read each kind of problem in one sentence knows no other."""

import random

from octavo.tasks.types import Problem

_EXPRESSION = ("{}", "{}", "{} =", "{} = ?", "{}?", "What is {}?", "How much is {}?", "Calculate {}.", "Compute {}")
_EQUATION = ("{}", "Solve {}", "Solve {} for {variable}.", "If {}, what is {variable}?", "What is {variable} if {}?")
_LEGS = ("How many legs do {} have?", "Count the legs: {}", "{}: how many legs?", "{}. How many legs in total?")
_TIMES = (" * ", " * ", "*", " x ", "x", " × ", " times ")


def reworded(problem: Problem, rng: random.Random) -> str | None:
    """The question in other words, drawn with `rng`; None for kinds of problems that have none here."""
    facts = problem.metadata
    match facts.get("source_dataset"):
        case "chain_sum":
            return rng.choice(_EXPRESSION).format(_spaced(facts["expression"], rng))
        case "products":
            return rng.choice(_EXPRESSION).format(facts["expression"].replace(" * ", rng.choice(_TIMES)))
        case "simple_equations":
            return rng.choice(_EQUATION).format(_spaced(facts["equation"], rng), variable=facts["variable"])
        case "leg_counting":
            return rng.choice(_LEGS).format(_listed([f"{n} {animal}s" for animal, n in facts["animals"].items()], rng))
    return None


def _spaced(expression: str, rng: random.Random) -> str:
    return expression if rng.random() < 0.5 else expression.replace(" ", "")


def _listed(things: list[str], rng: random.Random) -> str:
    *others, last = things
    return f"{', '.join(others)}{rng.choice((' and ', ', '))}{last}" if others else last
