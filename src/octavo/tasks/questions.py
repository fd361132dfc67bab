"""A user's own questions as a task: every shape and kind of file that data/questions.py reads.

They are split in three by their text alone: held-out ones measure, validation ones choose the best weights, the rest
is trained on. No question is in two of them, and copies count once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from octavo.config import Config
from octavo.data.examples import Example
from octavo.data.files import find_files
from octavo.data.questions import read_questions
from octavo.data.split import SplitConfig, question_key, split_by_file, split_questions
from octavo.data.tables import TABLE_KINDS, WrongRows
from octavo.errors import DataError
from octavo.tasks.asking import AskingConfig
from octavo.tasks.types import Problem, Split
from octavo.tasks.verified import VerifiedTask
from octavo.tasks.verifiers.build import VerifierConfig, files_of
from octavo.tasks.verifiers.exact import ExactConfig
from octavo.tasks.verifiers.pool import WorkerPool
from octavo.text.messages import Document, Message
from octavo.world import derive_seed

_SPLIT_SEED = 0
"""Fixed, so that runs of any seed are measured on the same questions."""
_VALIDATION_SEED = 1


class QuestionsTaskConfig(Config):
    """Questions of one's own. Columns beside question and answer reach the verifier; a column `language` says in which
    language reasoning is wanted, and goes before that of the config."""

    kind: Literal["questions"] = "questions"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders and glob patterns: .jsonl, .json, .csv, .tsv, .parquet, plain or compressed."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Role -> column, where names do not say it: {question: frage, answer: antwort}."""
    held_out: tuple[str, ...] = ()
    """Files of the questions to measure by; none: some of `paths` are held out."""
    split: SplitConfig = SplitConfig()
    """How many are held out."""
    validation: SplitConfig | None = SplitConfig(share=0.1, at_least=10, at_most=100)
    """How many of the others are set apart to choose the best weights by; None, or too few of them: the questions that
    are trained on choose."""
    leave_out: tuple[str, ...] = ()
    """Places of rows ("data.jsonl:17") that are not used, for example as they are too long."""
    verifier: VerifierConfig = ExactConfig()
    """What judges answers: a kind (exact, numeric, choice, regex, math, json_schema, reasoning_gym, code), a function
    (checks.py:score), or a group of keys with `kind` among them."""
    label: str | None = None
    """Name in tables; default: that of the first file without its ending."""
    weight: float = Field(default=1.0, gt=0)
    """Share in a mixture, relative to the other tasks."""
    gold: Literal["answer", "reply"] = "answer"
    """What answers are compared with: the gold answers, or, where there are none, the worked answers themselves."""
    language: str = "en"
    """Language in which reasoning is wanted."""
    grading_seconds: float = Field(default=5.0, gt=0)
    """Time limit of grading one answer."""

    def files(self) -> tuple[Path, ...]:
        """Files whose content decides what the task asks and how it judges."""
        tables = find_files([*self.paths, *self.held_out], TABLE_KINDS)
        return (*tables, *files_of(self.verifier))


@dataclass(frozen=True)
class QuestionSets:
    """A user's questions, split. `warnings` are lines for the user."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    held_out: tuple[Example, ...]
    warnings: tuple[str, ...]


def split_in_three(config: QuestionsTaskConfig) -> QuestionSets:
    """Read the files and split them. Raises DataError or ConfigError as `read_questions` and `split_questions` do."""
    examples = _read(config, config.paths)
    if config.held_out:
        split = split_by_file(examples, _read(config, config.held_out))
    else:
        split = split_questions(examples, config.split, _SPLIT_SEED)
    rest, warnings = split.train, list(split.warnings)
    if config.validation is None or len(rest) < 4 * config.validation.at_least:
        return QuestionSets(rest, (), split.held_out, tuple(warnings))
    apart = split_questions(rest, config.validation, _VALIDATION_SEED)
    return QuestionSets(apart.train, apart.held_out, split.held_out, tuple(warnings))


class QuestionsTask(VerifiedTask):
    """Questions from files: each epoch passes over the split's questions once, in an order of its own.

    Raises DataError, for a row with its place, for anything that cannot be read or judged.
    """

    def __init__(self, config: QuestionsTaskConfig, pool: WorkerPool | None = None) -> None:
        name = config.label or Path(config.paths[0]).name.partition(".")[0] or "questions"
        super().__init__(name, config.verifier, config.grading_seconds, pool)
        self.sets = split_in_three(config)
        self._language = config.language
        self._rows: dict[str, list[Problem]] = {
            "train": self._problems(self.sets.train),
            "validation": self._problems(self.sets.validation),
            "held_out": self._problems(self.sets.held_out),
        }
        # An order is needed again for the next index, so a few are kept.
        self._order = lru_cache(maxsize=8)(self._shuffle)

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        return self._draw(split, seed, index)

    def validation_problem(self, seed: int, index: int) -> Problem:
        if not self._rows["validation"]:
            return super().validation_problem(seed, index)
        return self._draw("validation", seed, index)

    def asked(self, example: Example) -> Problem:
        """The problem that an example of this task poses. Raises DataError for a language that is no code."""
        language = example.metadata.get("language", self._language)
        if not isinstance(language, str):
            raise DataError(f"{example.where}: language must be a code such as en, got {language!r}")
        return example.problem(self.name, language)

    def worked(self, asking: AskingConfig, bare_answers: bool) -> list[Document]:
        """Worked answers of the train split; with `bare_answers` also gold ones of questions without."""
        documents = []
        for example in self.sets.train:
            reply = example.reply
            if reply is None and bare_answers and example.answer is not None:
                reply = Message("assistant", asking.written(example.answer))
            if reply is not None:
                documents.append(Document(messages=(*asking.messages(self.asked(example)), reply)))
        return documents

    def _draw(self, split: str, seed: int, index: int) -> Problem:
        rows = self._rows[split]
        epoch, position = divmod(index, len(rows))
        row = rows[self._order(split, seed, epoch)[position]]
        return replace(row, id=f"{self.name}/{split}/{seed}/{index}")

    def _shuffle(self, split: str, seed: int, epoch: int) -> list[int]:
        order = list(range(len(self._rows[split])))
        random.Random(derive_seed(seed, "questions", self.name, split, epoch)).shuffle(order)
        return order

    def _problems(self, examples: Sequence[Example]) -> list[Problem]:
        """What is asked: each question once, and only those with a gold answer where there are such."""
        answered = [example for example in examples if example.answer is not None] or examples
        different = {question_key(example): example for example in answered}
        wrong = WrongRows()
        problems = []
        for example in different.values():
            try:
                problem = self.asked(example)
                self.verifier.check(problem)
                problems.append(problem)
            except DataError as error:
                wrong.add(error if str(error).startswith(example.where) else f"{example.where}: {error}")
        wrong.check()
        return problems


def _read(config: QuestionsTaskConfig, paths: Sequence[str]) -> list[Example]:
    left_out = set(config.leave_out)
    read = read_questions(paths, config.columns).examples
    examples = [example for example in read if example.where not in left_out]
    if config.gold == "answer":
        return examples
    return [
        example if example.reply is None else replace(example, answer=example.reply.content) for example in examples
    ]
