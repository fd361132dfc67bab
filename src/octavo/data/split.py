"""Which questions are held out: by their text alone, so that no order of rows and no copy leaks one into training.

Copies of a question (same words, whatever the capitals and spaces) always lie on one side. What differs in digits and
punctuation only is another question (17 + 26 is not 17 + 62), but how many such there are is said.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from octavo.config import Config
from octavo.data.examples import Example
from octavo.errors import DataError

FEWEST_QUESTIONS = 20
"""Fewer are not split: neither half would say anything."""
_NO_LETTER = re.compile(r"[\W\d_]+")


class SplitConfig(Config):
    """How many questions are held out."""

    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the questions ..."""
    at_least: int = Field(default=10, gt=0)
    """... but at least so many (and never more than half) ..."""
    at_most: int = Field(default=500, gt=0)
    """... and at most so many: each is answered several times at every measurement."""


@dataclass(frozen=True)
class QuestionSplit:
    """Examples to train on and to measure by; no question is in both. `warnings` are lines for the user."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    warnings: tuple[str, ...]


def split_questions(examples: Sequence[Example], config: SplitConfig, seed: int) -> QuestionSplit:
    """Hold out a share of the questions, the same for the same questions and seed, in whatever order they come.

    Only questions with a gold answer are held out, where there are such. A question with several worked answers is
    trained on with all of them, and measured once. Raises DataError for fewer than 20 different questions.
    """
    checkable = [example for example in examples if example.answer is not None] or examples
    questions = list(dict.fromkeys(map(question_key, checkable)))
    if len(questions) < FEWEST_QUESTIONS:
        raise DataError(
            f"{len(questions)} different questions are too few to hold some out: at least {FEWEST_QUESTIONS} are "
            "needed; add questions, or give those to measure by in a file of their own (--held-out FILE)"
        )
    wanted = min(max(round(config.share * len(questions)), config.at_least), config.at_most, len(questions) // 2)
    held_out = set(sorted(questions, key=lambda question: _rank(question, seed))[:wanted])
    return _split(
        [example for example in examples if question_key(example) not in held_out],
        [example for example in examples if question_key(example) in held_out],
    )


def split_by_file(train: Sequence[Example], held_out: Sequence[Example]) -> QuestionSplit:
    """Measure by questions of another file; those of them that stand in `train` too are removed from it, and counted.

    Raises DataError if nothing is left to train on.
    """
    measured = set(map(question_key, held_out))
    kept = [example for example in train if question_key(example) not in measured]
    if not kept:
        raise DataError(f"all {len(train)} questions to train on are also held out: expected others")
    split = _split(kept, held_out)
    removed = len(train) - len(kept)
    leaked = f"{removed} training rows ask held-out questions, and are left out"
    return QuestionSplit(split.train, split.held_out, (leaked, *split.warnings) if removed else split.warnings)


def question_key(example: Example) -> str:
    """The whole prompt without capitals and spaces: equal for copies of one question."""
    return "\0".join(_folded(f"{message.role} {message.content}") for message in example.messages)


def _split(train: Sequence[Example], held_out: Sequence[Example]) -> QuestionSplit:
    """Without rows that say what another one says."""
    learned = {(question_key(example), example.answer, example.reply): example for example in train}
    measured: dict[str, Example] = {}
    for example in held_out:
        first = measured.setdefault(question_key(example), example)
        if first.answer is None and example.answer is not None:
            measured[question_key(example)] = example
    warnings = []
    if repeated := len(train) - len(learned) + len(held_out) - len(measured):
        warnings.append(f"{repeated} rows repeat another one, and are left out")
    warnings += _contradictions([*train, *held_out])
    asked = set(map(_letters, learned.values()))
    if near := sum(_letters(example) in asked for example in measured.values()):
        warnings.append(
            f"{near} of {len(measured)} held-out questions differ from one in training in digits and punctuation only: "
            "the score says how well the model does on such questions, not on new kinds"
        )
    return QuestionSplit(tuple(learned.values()), tuple(measured.values()), tuple(warnings))


def _contradictions(examples: Sequence[Example]) -> list[str]:
    answers: dict[str, dict[str, Example]] = {}
    for example in examples:
        if example.answer is not None:
            answers.setdefault(question_key(example), {}).setdefault(_folded(example.answer), example)
    different = [list(found.values()) for found in answers.values() if len(found) > 1]
    if not different:
        return []
    first, second, *_ = different[0]
    return [
        f"{len(different)} questions stand there with different answers, as in {first.where} and {second.where}: "
        "mend them, one must be wrong"
    ]


def _rank(question: str, seed: int) -> bytes:
    return hashlib.sha256(f"held-out\0{seed}\0{question}".encode()).digest()


def _letters(example: Example) -> str:
    return _NO_LETTER.sub(" ", question_key(example))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
