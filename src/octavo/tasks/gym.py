"""reasoning-gym as the source of problems: any of its datasets by name, with the library's own verifier.

Source: Stojanovski et al. 2025, "Reasoning Gym" (arXiv:2505.24760). The library seeds entry `i` of a dataset with
`seed + i`, so that neighbouring seeds give nearly the same problems; here every draw gets an index of its own, hashed
from (task, split, seed, index, attempt), in a dataset whose seed is fixed.
"""

import dataclasses
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from octavo.config import Config, nearest
from octavo.errors import ConfigError
from octavo.tasks import answers
from octavo.tasks.held_out import operand_key, split_of
from octavo.tasks.solutions.wordings import reworded
from octavo.tasks.task import Task
from octavo.tasks.types import Problem, Split
from octavo.world import derive_seed

# Entries are made when asked for, so that the index may be any number; the few datasets that prepare every entry when
# they are built get this many.
_PREPARED_ENTRIES = 4096
_LAST_INDEX = 2**31 - 2
_MAX_ATTEMPTS = 1000
_OURS = ("seed", "size")
# There is one right answer here, yet the library's verifier also gives a full score to others: to a right answer with
# letters appended (a rounding slip), to any text without "True" where False is right, to any whose first number is.
_ONE_RIGHT_ANSWER = ("spell_backward", "letter_jumble", "game_of_life_halting", "gsm_symbolic")
# Some of the library's verifiers look for the answer anywhere in a text, so a completion could name many.
_WORDS_BEYOND_GOLD = 4
_WORD = re.compile(r"[^\W\d_]{2,}")


class ReasoningGymConfig(Config):
    """One dataset of reasoning-gym."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    name: str
    """Name of the dataset in the library, such as chain_sum."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the dataset, as the library names them."""
    label: str | None = None
    """Name in tables; default: `name`. Needed where one dataset is used twice."""
    weight: float = Field(default=1.0, gt=0)
    """Share in a mixture, relative to the other tasks."""
    language: str = "en"
    """Language in which reasoning is wanted."""
    reworded_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the training problems that are asked as people type them ("47+38", "What is 47 + 38?"), where
    tasks/solutions/wordings.py has words for this dataset. Held-out problems keep the library's."""
    grading_seconds: float = Field(default=5.0, gt=0)
    """Time limit of grading one answer."""

    def files(self) -> tuple[Path, ...]:
        """Files whose content decides what the task asks: none."""
        return ()


class ReasoningGymTask(Task):
    """A dataset of reasoning-gym. Raises ConfigError for an unknown name, parameter or an impossible value."""

    def __init__(self, config: ReasoningGymConfig) -> None:
        super().__init__(config.label or config.name, config.grading_seconds)
        self._config = config
        self._dataset = create_dataset(config)
        self._entries = _entries(self._dataset)

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        for attempt in range(_MAX_ATTEMPTS):
            draw = derive_seed(seed, "reasoning_gym", self._config.name, split, index, attempt) % self._entries
            entry = self._dataset[draw]
            if not _answerable(entry):
                continue
            question, answer, metadata = entry["question"], entry["answer"] or "", entry["metadata"]
            if split_of(self._config.name, operand_key(self._config.name, question, answer, metadata)) == split:
                problem = Problem(
                    id=f"{self.name}/{split}/{seed}/{index}",
                    task=self.name,
                    question=question.strip(),
                    answer=answer,
                    language=self._config.language,
                    metadata=metadata,
                )
                return self._reword(problem, random.Random(draw)) if split == "train" else problem
        raise ConfigError(
            f"task {self.name}: no {split} problem in {_MAX_ATTEMPTS} draws; "
            f"params {self._config.params} leave too few different problems, widen them"
        )

    def _reword(self, problem: Problem, rng: random.Random) -> Problem:
        if rng.random() >= self._config.reworded_share:
            return problem
        return dataclasses.replace(problem, question=reworded(problem, rng) or problem.question)

    def score(self, problem: Problem, answer: str) -> float:
        return score_entry(self._config.name, self._dataset, problem.question, problem.answer, problem.metadata, answer)


def score_entry(name: str, dataset: Any, question: str, gold: str, metadata: Mapping[str, Any], answer: str) -> float:
    """Score an answer to a problem of dataset `name`, which may be another instance than that which posed it."""
    # A few datasets have no single gold answer (None in the library, "" here) and judge by the metadata.
    entry = {"question": question, "answer": gold or None, "metadata": metadata}
    if _talks(answer, gold):
        return 0.0
    score = float(dataset.score_answer(answer, entry))
    if name in _ONE_RIGHT_ANSWER:
        # Partial scores stay below a full one, which `Grade.correct` allows a little rounding.
        return 1.0 if answers.exact_match(answer, gold) else min(score, 0.99)
    return score


def _talks(answer: str, gold: str) -> bool:
    """Whether an answer is prose around what was asked for. Nothing is known of it where there is no gold answer."""
    if not gold:
        return False
    stray = set(_WORD.findall(answer.casefold())) - set(_WORD.findall(gold.casefold()))
    return len(stray) > _WORDS_BEYOND_GOLD


def create_dataset(config: ReasoningGymConfig) -> Any:
    """Raises ConfigError for an unknown name, parameter or an impossible value."""
    from reasoning_gym import factory  # Takes over a second to import.

    known_datasets = factory.DATASETS
    where = f"task {config.name}"
    if config.name not in known_datasets:
        raise ConfigError(f"reasoning_gym has no dataset {config.name!r}{nearest(config.name, known_datasets)}")
    known = {field.name for field in dataclasses.fields(known_datasets[config.name][1])} - set(_OURS)
    for name in config.params:
        if name in _OURS:
            raise ConfigError(f"{where}: params.{name} is set by octavo (problems are drawn by split, seed and index)")
        if name not in known:
            raise ConfigError(f"{where}: unknown parameter {name}{nearest(name, known)}")
    try:
        return factory.create_dataset(config.name, seed=0, size=_PREPARED_ENTRIES, **config.params)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{where}: params {config.params}: {reason}") from error


def _answerable(entry: dict[str, Any]) -> bool:
    """False for the library's slips: an answer that is nothing, an unknown that cancelled out (0 = 0)."""
    metadata = entry["metadata"]
    lost_unknown = "equation" in metadata and metadata.get("variable", "") not in metadata["equation"]
    return entry["answer"] != "" and not lost_unknown


def _entries(dataset: Any) -> int:
    """How many different indices the dataset can be asked for."""
    try:
        dataset[_LAST_INDEX]
    except IndexError:
        return _PREPARED_ENTRIES
    return _LAST_INDEX + 1
