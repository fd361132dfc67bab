"""Questions and answers from a JSON-lines file, one object a line."""

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from octavo.config import Config, nearest
from octavo.errors import DataError
from octavo.tasks import answers
from octavo.tasks.held_out import split_of
from octavo.tasks.task import Task
from octavo.tasks.types import Problem, Split
from octavo.world import derive_seed

Verifier = Literal["exact", "numeric", "math"]


class JsonlTaskConfig(Config):
    """Questions of one's own."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    """File with one JSON object a line."""
    verifier: Verifier = "exact"
    """exact: same text or number; numeric: numbers within `tolerance`; math: equal as mathematics (LaTeX)."""
    tolerance: float = Field(default=0.0, ge=0)
    """Of the numeric verifier: allowed difference, relative for answers above 1."""
    question_field: str = "question"
    """Key of the question."""
    answer_field: str = "answer"
    """Key of the gold answer."""
    measure_only: bool = False
    """All questions are held out: to measure a model on the whole file. Otherwise the split is by question, 15% held
    out."""
    label: str | None = None
    """Name in tables; default: the file's name without its ending."""
    weight: float = Field(default=1.0, gt=0)
    """Share in a mixture, relative to the other tasks."""
    language: str = "en"
    """Language in which reasoning is wanted."""
    grading_seconds: float = Field(default=5.0, gt=0)
    """Time limit of grading one answer."""


class JsonlTask(Task):
    """Questions from a file: each epoch passes over the split's questions once, in an order of its own.

    Raises DataError naming the file and line for anything that cannot be read.
    """

    def __init__(self, config: JsonlTaskConfig) -> None:
        super().__init__(config.label or config.path.stem, config.grading_seconds)
        self._config = config
        self._rows: dict[Split, list[tuple[int, str, str]]] = {"train": [], "held_out": []}
        for line, question, answer in _read(config):
            key = " ".join(question.casefold().split())
            split = "held_out" if config.measure_only else split_of("jsonl", key)
            self._rows[split].append((line, question, answer))
        # An order is needed again for the next index, so a few are kept.
        self._order = lru_cache(maxsize=8)(self._shuffle)

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        rows = self._rows[split]
        if not rows:
            raise DataError(f"{self._config.path}: none of its questions falls into the {split} split; add questions")
        epoch, position = divmod(index, len(rows))
        line, question, answer = rows[self._order(split, seed, epoch)[position]]
        return Problem(
            id=f"{self.name}/{split}/{seed}/{index}",
            task=self.name,
            question=question,
            answer=answer,
            language=self._config.language,
            metadata={"line": line},
        )

    def score(self, problem: Problem, answer: str) -> float:
        match self._config.verifier:
            case "exact":
                return float(answers.exact_match(answer, problem.answer))
            case "numeric":
                return float(answers.numeric_match(answer, problem.answer, self._config.tolerance))
            case "math":
                return float(answers.math_match(answer, problem.answer))

    def _shuffle(self, split: Split, seed: int, epoch: int) -> list[int]:
        order = list(range(len(self._rows[split])))
        random.Random(derive_seed(seed, "jsonl", self.name, split, epoch)).shuffle(order)
        return order


def _read(config: JsonlTaskConfig) -> list[tuple[int, str, str]]:
    try:
        lines = config.path.read_text(encoding="utf-8").split("\n")  # Not splitlines(): JSON text may hold U+2028.
    except OSError as error:
        raise DataError(f"{config.path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{config.path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    rows = [(number, *_parse(config, number, line)) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"{config.path}: holds no question")
    return rows


def _parse(config: JsonlTaskConfig, number: int, line: str) -> tuple[str, str]:
    where = f"{config.path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with {config.question_field!r} and {config.answer_field!r}")
    question, answer = (_text(row, field, where) for field in (config.question_field, config.answer_field))
    if config.verifier == "numeric" and answers.parse_number(answer) is None:
        raise DataError(f"{where}: the numeric verifier needs a number as answer, got {answer!r}; use verifier: exact")
    return question, answer


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(f"{where}: no key {field!r}{nearest(field, row)}")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f"{where}: {field} must be text or a number, got {value!r}")
    return str(value)
