"""What there is to learn from: the user's data, looked at before a recipe is made of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from octavo.adapt.wishes import Wishes
from octavo.assess import parse_task
from octavo.data.examples import Example
from octavo.data.questions import Questions, read_questions
from octavo.data.screening import check_answers_differ, drop_too_long
from octavo.errors import ConfigError
from octavo.evals.evaluate import EvaluationConfig, held_out_problems
from octavo.tasks import answers
from octavo.tasks.asking import AskingConfig, Reading
from octavo.tasks.build import TaskConfig, build_mixture
from octavo.tasks.gym import ReasoningGymConfig
from octavo.tasks.questions import QuestionsTask, QuestionsTaskConfig
from octavo.tasks.solutions import write
from octavo.tasks.source import SolutionSource, SolutionSourceConfig
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import Problem
from octavo.text.messages import Document
from octavo.text.template import END_THINK, THINK, encode_documents
from octavo.text.tokenizer import Tokenizer

_READABLE_SHARE = 0.95
"""So many worked answers must give their own gold answer for a way of reading to be taken."""
_SAMPLE = 200
"""Worked solutions of a generator that are looked at."""
_LETTERS = frozenset("ABCDE")


@dataclass(frozen=True)
class Material:
    """Tasks, and what is known of them. `warnings` are lines for the user."""

    tasks: dict[str, TaskConfig]
    asking: AskingConfig
    mixture: TaskMixture
    questions: Questions | None
    """The user's rows; None where a generator poses the problems."""
    train: int | None
    """Questions to train on; None: without end."""
    validation: int | None
    held_out: int
    worked: int | None
    """Worked answers among those to train on; None: as many as wanted, 0: none."""
    worked_tokens: tuple[int, ...]
    """Lengths of conversations with worked answers (a sample), in tokens."""
    reply_tokens: tuple[int, ...]
    """Lengths of the worked answers alone."""
    gold_tokens: int
    """Length of the longest gold answer looked at."""
    prompt_tokens: int
    """Length of the longest question looked at."""
    checkable: bool
    warnings: tuple[str, ...] = field(default=())


def look_at(wishes: Wishes, tokenizer: Tokenizer, context_tokens: int) -> Material:
    """Read, screen and split the data. Raises DataError or ConfigError, in one line each."""
    generators = [spec for spec in wishes.data if _is_generator(spec)]
    if generators and len(generators) < len(wishes.data):
        raise ConfigError("data: give either files or reasoning-gym tasks, not both")
    if generators:
        return _generated(wishes, generators, tokenizer)
    return _written(wishes, tokenizer, context_tokens)


def _is_generator(spec: str) -> bool:
    name = spec.partition(":")[0]
    return not Path(spec).exists() and name.isidentifier()


def _generated(wishes: Wishes, specs: Sequence[str], tokenizer: Tokenizer) -> Material:
    tasks: dict[str, TaskConfig] = {}
    for spec in specs:
        task = parse_task(spec)
        assert isinstance(task, ReasoningGymConfig)
        tasks[task.name if task.name not in tasks else spec.replace(":", " ")] = task.model_copy(
            update={"language": wishes.language}
        )
    labelled = [task.model_copy(update={"label": name}) for name, task in tasks.items()]
    mixture = build_mixture(labelled)
    problems = [mixture.problem("train", wishes.seed, index) for index in range(_SAMPLE)]
    worked = _has_solutions(problems)
    asking = _asking(wishes, _reading_of_golds(problems, {"kind": "numeric"} if _all_numbers(problems) else {}))
    documents = []
    if worked:
        source = SolutionSource(SolutionSourceConfig(tasks=tuple(labelled), documents=_SAMPLE, asking=asking))
        documents = [source.document(index) for index in range(_SAMPLE)]
    held_out = held_out_problems(mixture, EvaluationConfig(problems=500))
    return Material(
        tasks=tasks,
        asking=asking,
        mixture=mixture,
        questions=None,
        train=None,
        validation=None,
        held_out=len(held_out),
        worked=None if worked else 0,
        checkable=True,
        **_lengths(tokenizer, asking, documents, problems),
    )


def _has_solutions(problems: Sequence[Problem]) -> bool:
    try:
        for problem in problems[:20]:
            write(problem, "steps", "en", random.Random(0))
    except ConfigError:
        return False
    return True


def _written(wishes: Wishes, tokenizer: Tokenizer, context_tokens: int) -> Material:
    questions = read_questions(wishes.data, wishes.columns)
    examples = list(questions.examples)
    answered = [example for example in examples if example.answer is not None]
    checkable = bool(answered) or wishes.verifier is not None
    if answered:
        check_answers_differ(answered)
    kept, warnings = drop_too_long(examples, tokenizer, context_tokens)
    places = {example.where for example in kept}
    verifier = wishes.verifier or _verifier_for(answered)
    config = QuestionsTaskConfig.parse(
        {
            "kind": "questions",
            "paths": list(wishes.data),
            "columns": wishes.columns,
            "held_out": list(wishes.held_out),
            "leave_out": [example.where for example in examples if example.where not in places],
            "verifier": verifier,
            "gold": "answer" if checkable else "reply",
            "language": wishes.language,
        },
        "data",
    )
    mixture = build_mixture([config])
    (task,) = mixture.tasks
    assert isinstance(task, QuestionsTask)
    warnings += task.sets.warnings
    worked = [example for example in task.sets.train if example.reply is not None]
    problems = [task.asked(example) for example in task.sets.train]
    reading = _reading_of_replies(task, worked, warnings) if worked else _reading_of_golds(problems, verifier)
    asking = _asking(wishes, reading)
    documents = task.worked(asking, bare_answers=wishes.method == "sft" and not worked)
    if not task.sets.validation:
        warnings.append(
            f"{len(task.sets.train)} questions to train on are too few to set validation ones apart: the best weights "
            "are chosen by questions that are trained on"
        )
    return Material(
        tasks={task.name: config},
        asking=asking,
        mixture=mixture,
        questions=questions,
        train=len(task.sets.train),
        validation=len(task.sets.validation),
        held_out=len(task.sets.held_out),
        worked=len(worked),
        checkable=checkable,
        warnings=tuple(warnings),
        **_lengths(tokenizer, asking, documents, problems),
    )


def _lengths(
    tokenizer: Tokenizer, asking: AskingConfig, documents: Sequence[Document], problems: Sequence[Problem]
) -> dict[str, Any]:
    encoded = encode_documents(tokenizer, documents) if documents else []
    golds = [len(tokenizer.encode(problem.answer)) for problem in problems if problem.answer]
    return {
        "worked_tokens": tuple(len(document.ids) for document in encoded),
        "reply_tokens": tuple(sum(weight > 0 for weight in document.weights) for document in encoded),
        "gold_tokens": max(golds, default=0),
        "prompt_tokens": max(len(asking.prompt(tokenizer, problem)) for problem in problems),
    }


def _verifier_for(answered: Sequence[Example]) -> dict[str, Any]:
    """What fits gold answers as they are."""
    golds = [example.answer or "" for example in answered]
    if golds and all(answers.parse_number(gold) is not None for gold in golds):
        return {"kind": "numeric"}
    if golds and all(gold.strip("(). ") in _LETTERS for gold in golds):
        return {"kind": "choice"}
    return {"kind": "exact"}


def _all_numbers(problems: Sequence[Problem]) -> bool:
    return all(answers.parse_number(problem.answer) is not None for problem in problems)


def _reading_of_golds(problems: Sequence[Problem], verifier: dict[str, Any]) -> Reading:
    """Where there is no worked answer to go by. Small models write no tags that they have not learned."""
    numeric = verifier.get("kind") in ("numeric", "exact") and _all_numbers(problems)
    return "last_number" if numeric else "reply"


def _reading_of_replies(task: QuestionsTask, worked: Sequence[Example], warnings: list[str]) -> Reading:
    """The first way of reading by which worked answers give their own gold answers."""
    golds = [example for example in worked if example.answer is not None][:_SAMPLE]
    if not golds:
        return "reply"
    shares: dict[Reading, float] = {}
    for reading in get_args(Reading):
        asking = AskingConfig(reading=reading)
        read = [(task.asked(example), asking.answer(reply_text(example))) for example in golds]
        grades = task.grade_all(read)
        shares[reading] = sum(grade.correct for grade in grades) / len(golds)
        if shares[reading] >= _READABLE_SHARE:
            return reading
    best = max(shares, key=shares.__getitem__)
    warnings.append(
        f"only {shares[best]:.0%} of the worked answers give their own gold answer (read as {best}): mend the others, "
        "or say how they are to be read with --reading"
    )
    return best


def reply_text(example: Example) -> str:
    """What a worked answer would look like as a completion."""
    reply = example.reply
    if reply is None:
        return ""
    return reply.content if reply.reasoning is None else f"{THINK}{reply.reasoning}{END_THINK}{reply.content}"


def _asking(wishes: Wishes, reading: Reading) -> AskingConfig:
    return AskingConfig(system=wishes.system, suffix=wishes.suffix or "", reading=wishes.reading or reading)
