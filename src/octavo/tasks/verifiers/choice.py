"""One letter out of a few: B, (B), [b], "B) Paris", or the text of the choice itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from octavo.config import Config
from octavo.errors import DataError
from octavo.tasks import answers
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier

# "B", "(B)", "[b].", "B) Paris", "B: Paris"; the text behind the letter is looked at by itself.
_LETTER = re.compile(r"(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z]))[.):]?(?:(?<=[.):\]])\s*(\S.*))?", re.IGNORECASE | re.DOTALL)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


class ChoiceConfig(Config):
    """Multiple choice: the gold answer is a letter, or the text of the right choice."""

    kind: Literal["choice"] = "choice"
    letters: str = Field(default="ABCDE", pattern="^[A-Z]{2,26}$")
    """Letters in the order of the choices."""
    column: str = Field(default="choices", min_length=1)
    """Column with the choices: a list of texts, or an object letter -> text. A row without it is judged by letters."""


class ChoiceVerifier(Verifier):
    """Right is the letter, with or without brackets or the choice's own text, or that text alone; one letter only."""

    foreign = False

    def __init__(self, config: ChoiceConfig) -> None:
        self._config = config

    def score(self, problem: Problem, answer: str) -> float:
        choices = self._choices(problem)
        gold = self._read(problem.answer, choices)
        return float(gold is not None and self._read(answer, choices) == gold)

    def check(self, problem: Problem) -> None:
        choices = self._choices(problem)
        if self._read(problem.answer, choices) is None:
            expected = f"one of the letters {''.join(choices)} or the text of a choice"
            raise DataError(f"the choice verifier needs {expected} as answer, got {problem.answer!r}")

    def together(self, golds: Sequence[str]) -> list[str]:
        letters = self._config.letters
        return [
            *super().together(golds),
            letters,
            " ".join(letters),
            ", ".join(letters),
            "(" + ")(".join(letters) + ")",
        ]

    def _choices(self, problem: Problem) -> Mapping[str, str]:
        """Letter -> normalized text ("" where the row does not say)."""
        given: Any = problem.metadata.get(self._config.column)
        if isinstance(given, list) and 2 <= len(given) <= len(self._config.letters):
            given = dict(zip(self._config.letters, given, strict=False))
        if given is None:
            return dict.fromkeys(self._config.letters, "")
        if not isinstance(given, Mapping) or not set(given) <= set(self._config.letters):
            expected = f"a list of 2 to {len(self._config.letters)} texts, or an object with letters as keys"
            raise DataError(f"{self._config.column} must be {expected}, got {str(given)[:60]!r}")
        return {letter: answers.normalize(str(text)) for letter, text in given.items()}

    @staticmethod
    def _read(text: str, choices: Mapping[str, str]) -> str | None:
        """The letter that is meant, or None if none or no single one is."""
        text = answers.clean(_LATEX_TEXT.sub(r"\1", text))
        normalized = answers.normalize(text)
        # Before letters are read: with choices A) B and B) A the text is what the question speaks of.
        meant = [letter for letter, said in choices.items() if said and said == normalized]
        if not meant and (match := _LETTER.fullmatch(text)):
            letter = (match[1] or match[2] or match[3]).upper()
            known = choices.get(letter)
            if known is not None and (match[4] is None or answers.normalize(match[4]) == known):
                meant = [letter]
        return meant[0] if len(meant) == 1 else None
