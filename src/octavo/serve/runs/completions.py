"""What a model wrote and how it was graded: rows of rollouts.jsonl and samples.jsonl, problems of evaluation.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import DataError
from octavo.evals.evaluate import Scores
from octavo.rundir import StageDir
from octavo.serve.runs.files import Row, last_rows
from octavo.serve.runs.view import numbers, read_small_json

PAGE_ROWS = 12
MOST_CHARACTERS = 20_000
"""Of a text that is shown; models that never stop write a lot."""
_MOST_PROBLEMS = 200


@dataclass(frozen=True)
class Completion:
    """One completion as it is shown; what the file does not say is None."""

    question: str
    text: str
    gold: str | None = None
    task: str | None = None
    step: int | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    status: str | None = None
    """Of grading: ok, or what went wrong."""
    reward: float | None = None
    rewards: Mapping[str, float] | None = None
    advantage: float | None = None
    group_rewards: tuple[float, ...] = ()


@dataclass(frozen=True)
class Page:
    """Completions, the newest first; `older` is where the page before ends, None if this is the oldest."""

    completions: tuple[Completion, ...] = ()
    older: int | None = None
    damaged: int = 0


@dataclass(frozen=True)
class Problem:
    """A held-out problem and the answers to it, with the verifier's word on each (None: it failed)."""

    question: str
    gold: str
    task: str
    answers: tuple[tuple[str | None, bool | None], ...]


@dataclass(frozen=True)
class Evaluated:
    """evaluation.json as it is shown; `problems` are the first ones, of `count`."""

    overall: Scores
    tasks: Mapping[str, Scores]
    problems: tuple[Problem, ...]
    count: int


def read_page(stage: StageDir, before: int | None) -> Page:
    """The last completions that end at byte `before`, of what reinforcement drew or sampling kept. Raises DataError."""
    path = stage.rollouts if stage.rollouts.exists() else stage.samples
    read = last_rows(path, PAGE_ROWS, before)
    shown = tuple(map(_completion, reversed(read.rows)))
    return Page(shown, None if read.whole else read.start, read.damaged)


def read_evaluation(path: Path) -> Evaluated | None:
    """None where there is no such file. Raises DataError, ConfigError."""
    values = read_small_json(path)
    if values is None:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("tasks"), dict):
        raise DataError(f"{path}: expected an evaluation with its tasks")
    records = [record for record in _list(values.get("records")) if isinstance(record, dict)]
    return Evaluated(
        overall=Scores.parse(values.get("overall"), f"{path}: overall"),  # type: ignore[arg-type]
        tasks={name: Scores.parse(scores, f"{path}: {name}") for name, scores in values["tasks"].items()},
        problems=tuple(map(_problem, records[:_MOST_PROBLEMS])),
        count=len(records),
    )


def _completion(row: Row) -> Completion:
    messages = [message for message in _list(row.get("messages")) if isinstance(message, dict)]
    asked = next((message for message in messages if message.get("role") == "user"), {})
    reply = next((message for message in reversed(messages) if message.get("role") == "assistant"), {})
    figures = numbers(row)
    rewards = row.get("rewards")
    return Completion(
        question=_text(row.get("question", asked.get("content"))),
        text=_text(row.get("completion", reply.get("content"))),
        gold=_some_text(row.get("gold")),
        task=_some_text(row.get("task")),
        step=_whole(row.get("step")),
        tokens=_whole(row.get("tokens")),
        finish_reason=_some_text(row.get("finish_reason")),
        status=_some_text(row.get("status")),
        reward=figures.get("reward"),
        rewards=numbers(rewards) if isinstance(rewards, dict) else None,
        advantage=figures.get("advantage"),
        group_rewards=tuple(numbers(dict(enumerate(_list(row.get("group_rewards"))))).values()),  # type: ignore[arg-type]
    )


def _problem(record: Row) -> Problem:
    answers, correct = _list(record.get("answers")), _list(record.get("correct"))
    return Problem(
        question=_text(record.get("question")),
        gold=_text(record.get("gold")),
        task=_text(record.get("task")),
        answers=tuple(
            (_some_text(answer), right if isinstance(right, bool) else None)
            for answer, right in zip(answers, correct, strict=False)
        ),
    )


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _text(value: object) -> str:
    return _some_text(value) or ""


def _some_text(value: object) -> str | None:
    """Text, cut where it is too long."""
    if not isinstance(value, str):
        return None
    return value if len(value) <= MOST_CHARACTERS else value[:MOST_CHARACTERS] + " …"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
