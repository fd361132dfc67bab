"""Questions and answers from a JSON-lines file, one object a line."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from octavo.config import Config, nearest
from octavo.errors import DataError
from octavo.tasks.held_out import split_of
from octavo.tasks.types import Problem, Split
from octavo.tasks.verified import VerifiedTask
from octavo.tasks.verifiers.build import VerifierConfig, files_of
from octavo.tasks.verifiers.exact import ExactConfig
from octavo.tasks.verifiers.pool import WorkerPool
from octavo.world import derive_seed


class JsonlTaskConfig(Config):
    """Questions of one's own. Columns beside question and answer reach the verifier; `language` of a row goes before
    that of the config."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    """File with one JSON object a line."""
    verifier: VerifierConfig = ExactConfig()
    """What judges answers: a kind (exact, numeric, choice, regex, math, json_schema, reasoning_gym, code), a function
    (checks.py:score), or a group of keys with `kind` among them. A `tolerance` beside it belongs to it."""
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

    @model_validator(mode="before")
    @classmethod
    def _with_tolerance(cls, values: Any) -> Any:
        """`verifier: numeric` with `tolerance` beside it is the short way to write the most common one."""
        if not isinstance(values, Mapping) or "tolerance" not in values:
            return values
        rest = {name: value for name, value in values.items() if name != "tolerance"}
        verifier = rest.get("verifier", "exact")
        named = {"kind": verifier} if isinstance(verifier, str) else verifier
        return {**rest, "verifier": {"tolerance": values["tolerance"], **named}}

    def files(self) -> tuple[Path, ...]:
        """Files whose content decides what the task asks and how it judges."""
        return (self.path, *files_of(self.verifier))


class JsonlTask(VerifiedTask):
    """Questions from a file: each epoch passes over the split's questions once, in an order of its own.

    Raises DataError naming the file and line for anything that cannot be read.
    """

    def __init__(self, config: JsonlTaskConfig, pool: WorkerPool | None = None) -> None:
        super().__init__(config.label or config.path.stem, config.verifier, config.grading_seconds, pool)
        self._config = config
        self._rows: dict[Split, list[Problem]] = {"train": [], "held_out": []}
        for problem in self._read():
            key = " ".join(problem.question.casefold().split())
            split = "held_out" if config.measure_only else split_of("jsonl", key)
            self._rows[split].append(problem)
        # An order is needed again for the next index, so a few are kept.
        self._order = lru_cache(maxsize=8)(self._shuffle)

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        rows = self._rows[split]
        if not rows:
            raise DataError(f"{self._config.path}: none of its questions falls into the {split} split; add questions")
        epoch, position = divmod(index, len(rows))
        row = rows[self._order(split, seed, epoch)[position]]
        return replace(row, id=f"{self.name}/{split}/{seed}/{index}")

    def _shuffle(self, split: Split, seed: int, epoch: int) -> list[int]:
        order = list(range(len(self._rows[split])))
        random.Random(derive_seed(seed, "jsonl", self.name, split, epoch)).shuffle(order)
        return order

    def _read(self) -> list[Problem]:
        path = self._config.path
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # Not splitlines(): JSON text may hold U+2028.
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
        problems = [self._parse(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if not problems:
            raise DataError(f"{path}: holds no question")
        return problems

    def _parse(self, number: int, line: str) -> Problem:
        question_field, answer_field = self._config.question_field, self._config.answer_field
        where = f"{self._config.path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with {question_field!r} and {answer_field!r}")
        question = _text(row, question_field, where, _scalar)
        answer = _text(row, answer_field, where, self.verifier.gold_text)
        language = row.get("language", self._config.language)
        if not isinstance(language, str):
            raise DataError(f"{where}: language must be a code such as en, got {language!r}")
        columns = {name: value for name, value in row.items() if name not in (question_field, answer_field)}
        metadata = {"line": number, **columns}
        problem = Problem("", self.name, question, answer, language=language, metadata=metadata)
        try:
            self.verifier.check(problem)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return problem


def _text(row: Mapping[str, Any], field: str, where: str, write: Callable[[Any], str | None]) -> str:
    if field not in row:
        raise DataError(f"{where}: no key {field!r}{nearest(field, row)}")
    value = row[field]
    text = None if isinstance(value, bool) or value is None else write(value)
    if text is None or not text.strip():
        raise DataError(f"{where}: {field} must be text or a number, got {value!r}")
    return text


def _scalar(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | float) else None
