"""Write a problem up in a style: shown or not, checked or not, right or spoilt.

Each task's module derives the steps from the question's operands with a `Scribe`; the styles are made here, for all
tasks alike, by planting a slip into that derivation or by leaving lines out. The gold answer is never read.
"""

import random
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from octavo.errors import ConfigError
from octavo.tasks.solutions import (
    base_conversion,
    chain_sum,
    count_bits,
    gcd,
    gsm_symbolic,
    leg_counting,
    products,
    simple_equations,
    spell_backward,
)
from octavo.tasks.solutions.phrases import PHRASES
from octavo.tasks.solutions.scribe import Scribe, slip
from octavo.tasks.types import Problem

Style = Literal["direct", "steps", "long", "check", "mend", "slip", "skip"]
Language = Literal["en", "pt", "mixed"]
STYLES: tuple[Style, ...] = get_args(Style)

_SLIP_ATTEMPTS = 8


@dataclass(frozen=True)
class Solution:
    """Worked text and the answer it comes to (wrong in the spoilt styles)."""

    reasoning: str
    answer: str


class Solver(Protocol):
    """What a task's module offers."""

    def notation(self, problem: Problem) -> str:
        """The problem in as few signs as its work needs, on one line."""
        ...

    def derive(self, problem: Problem, scribe: Scribe) -> str:
        """Write the steps and return the answer that follows from them."""
        ...

    def verify(self, problem: Problem, answer: str, scribe: Scribe) -> None:
        """Write a short check of a right answer by an inverse or second route."""
        ...


_SOLVERS: dict[str, Solver] = {
    "base_conversion": base_conversion,
    "chain_sum": chain_sum,
    "count_bits": count_bits,
    "gcd": gcd,
    "gsm_symbolic": gsm_symbolic,
    "leg_counting": leg_counting,
    "products": products,
    "simple_equations": simple_equations,
    "spell_backward": spell_backward,
}


def solvable(problem: Problem) -> bool:
    """Whether worked solutions can be written for this kind of problem."""
    return problem.metadata.get("source_dataset") in _SOLVERS


def notation(problem: Problem) -> str:
    """The problem as an exercise book has it: 42 - 25, where the library's question is a sentence or more."""
    return _solver(problem).notation(problem)


def write(problem: Problem, style: Style, language: Language, rng: random.Random) -> Solution:
    """Write up a problem.

    direct: the right answer, no work shown. steps: the derivation, each sum done in the head. long: sums and products
    written out by places. check: a derivation and a check of it. mend: a slip, noticed and mended. slip: a slip that is
    not noticed, so the answer is wrong. skip: the first step at most, then a guess that is right half of the time.
    check, mend and slip are written in the manner of steps or of long, by chance. Raises ConfigError for a task that
    has no worked solutions.
    """
    solver = _solver(problem)
    long = style == "long" or (style in ("check", "mend", "slip") and rng.random() < 0.5)
    clean = Scribe(rng, long=long)
    answer = solver.derive(problem, clean)
    match style:
        case "direct":
            return Solution(_say("direct", language, rng), answer)
        case "steps" | "long":
            return Solution(_join(*_sentences(clean.lines), _say("answer", language, rng, answer=answer)), answer)
        case "check":
            check = Scribe(rng, long=long)
            solver.verify(problem, answer, check)
            said = _say("check", language, rng, work=_join(*_sentences(check.lines)))
            return Solution(_join(*_sentences(clean.lines), said), answer)
        case "mend":
            return _mend(problem, solver, clean, answer, language, rng)
        case "slip":
            return _slip(problem, solver, clean, answer, language, rng)
        case "skip":
            return _skip(clean, answer, language, rng)


def _solver(problem: Problem) -> Solver:
    kind = str(problem.metadata.get("source_dataset"))
    if kind not in _SOLVERS:
        raise ConfigError(f"no worked solutions for task {problem.task}; they exist for: {', '.join(_SOLVERS)}")
    return _SOLVERS[kind]


def _mend(
    problem: Problem, solver: Solver, clean: Scribe, answer: str, language: Language, rng: random.Random
) -> Solution:
    """Right lines, one wrong line, "wait", and the derivation from that line on, right."""
    for _ in range(_SLIP_ATTEMPTS):
        spoilt = Scribe(rng, slip_at=rng.randrange(clean.results), long=clean.long)
        solver.derive(problem, spoilt)
        at = spoilt.slipped_line
        assert at is not None
        if spoilt.lines[at] != clean.lines[at]:
            break
    else:  # Slips that leave no trace (a remainder off by the whole base): nothing to mend.
        return write(problem, "steps", language, rng)
    assert spoilt.lines[:at] == clean.lines[:at]
    text = _join(
        *_sentences(spoilt.lines[: at + 1]),
        _say("wait", language, rng),
        *_sentences(clean.lines[at:]),
        _say("answer", language, rng, answer=answer),
    )
    return Solution(text, answer)


def _slip(
    problem: Problem, solver: Solver, clean: Scribe, answer: str, language: Language, rng: random.Random
) -> Solution:
    """A derivation with one slip that spoils the answer."""
    for _ in range(_SLIP_ATTEMPTS):
        spoilt = Scribe(rng, slip_at=rng.randrange(clean.results), long=clean.long)
        wrong = solver.derive(problem, spoilt)
        if wrong != answer:
            break
    else:  # Slips cancelled out (a factor of zero, a remainder that does not matter): misread the last line instead.
        spoilt, wrong = clean, _misread(answer, rng)
    return Solution(_join(*_sentences(spoilt.lines), _say("answer", language, rng, answer=wrong)), wrong)


def _skip(clean: Scribe, answer: str, language: Language, rng: random.Random) -> Solution:
    """At most the first line of several, then a guess."""
    shown = clean.lines[: min(rng.randrange(2), len(clean.lines) - 1)]
    guess = answer if rng.random() < 0.5 else _misread(answer, rng)
    return Solution(_join(*_sentences(shown), _say("guess", language, rng, answer=guess)), guess)


def _misread(answer: str, rng: random.Random) -> str:
    is_number = answer.removeprefix("-").isdecimal() and str(int(answer)) == answer
    return str(slip(int(answer), rng)) if is_number else slip(answer, rng)


def _say(name: str, language: Language, rng: random.Random, **parts: str) -> str:
    """Draw a wording; a mixed writer draws the language anew each time."""
    spoken = rng.choice(("en", "pt")) if language == "mixed" else language
    return rng.choice(PHRASES[spoken][name]).format(**parts)


def _sentences(lines: list[str]) -> list[str]:
    return [f"{line}." for line in lines]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
