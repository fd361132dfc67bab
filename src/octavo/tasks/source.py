"""Worked solutions as a corpus: problems of the train split, written up in mixed styles, languages and layouts."""

import bisect
import hashlib
import itertools
import json
import random
from collections.abc import Mapping
from importlib.metadata import version
from typing import Generic, TypeVar

from pydantic import Field

from octavo.config import Config
from octavo.errors import ConfigError
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.build import TaskConfig, build_mixture
from octavo.tasks.solutions import Language, Solution, Style, notation, write
from octavo.tasks.types import Problem
from octavo.text.messages import Document, Message
from octavo.text.template import ANSWER, END_ANSWER
from octavo.world import derive_seed

# Plain text as it is found: the same content under different headings.
_LAYOUTS = (
    "Question: {question}\nSolution: {reasoning}\nAnswer: {answer}",
    "Q: {question}\nA: {reasoning}\n{answer}",
    "{question}\n{reasoning}\n{answer}",
)

Name = TypeVar("Name", bound=str)


class WritingConfig(Config):
    """How problems are written up."""

    documents: int = Field(gt=0)
    """How many documents there are (an epoch)."""
    styles: Mapping[Style, float] = Field(default_factory=lambda: {"steps": 1.0})
    """Weight of each style: direct, steps, long, check, mend, slip (wrong), skip (a guess)."""
    languages: Mapping[Language, float] = Field(default_factory=lambda: {"en": 1.0})
    """Weight of each language of the words: en, pt, mixed (inside one solution)."""
    conversation_share: float = Field(default=1.0, ge=0, le=1)
    """Share written as a conversation (reasoning and answer apart); the rest is plain text."""
    page_problems: int = Field(default=1, gt=0)
    """Problems in a plain text. More than one: a page of exercises in short notation, dense in work to learn from."""


class SolutionSourceConfig(WritingConfig):
    """A corpus of worked solutions."""

    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    """Tasks that have worked solutions, mixed by their weights."""
    seed: int = 0
    """Another seed gives other documents."""
    asking: AskingConfig = PLAINLY
    """How conversations ask."""


class SolutionSource:
    """Document `index` is a pure function of (config, index): a `Source` that needs no file."""

    def __init__(self, config: SolutionSourceConfig) -> None:
        self._config = config
        self._tasks = build_mixture(config.tasks)
        self._styles = _Draw("styles", config.styles)
        self._languages = _Draw("languages", config.languages)
        for task in self._tasks.tasks:  # A task without solutions is an error now, not after an hour.
            write(task.problem("train", config.seed, 0), "steps", "en", random.Random(0))

    def __len__(self) -> int:
        return self._config.documents

    def document(self, index: int) -> Document:
        """Return document number `index`; raises IndexError outside 0 .. len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        problem = self._tasks.problem("train", self._config.seed, index)
        rng = random.Random(derive_seed(self._config.seed, "solution", index))
        if rng.random() < self._config.conversation_share:
            return _conversation(self._config.asking, problem, self._write(problem, rng))
        if self._config.page_problems == 1:
            return _plain(problem, self._write(problem, rng), rng)
        return self._page(index, rng)

    def _write(self, problem: Problem, rng: random.Random) -> Solution:
        return write(problem, self._styles(rng), self._languages(rng), rng)

    def _page(self, index: int, rng: random.Random) -> Document:
        seed, count = derive_seed(self._config.seed, "page"), self._config.page_problems
        problems = [self._tasks.problem("train", seed, index * count + place) for place in range(count)]
        return Document(text="\n".join(f"{notation(p)}: {self._write(p, rng).reasoning}" for p in problems))

    def fingerprint(self) -> str:
        """Change of config or of the problem library changes it."""
        facts = {"config": self._config.dump(), "reasoning_gym": version("reasoning_gym")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class _Draw(Generic[Name]):
    """Draws names by weight. Raises ConfigError unless some weight is positive and none is negative."""

    def __init__(self, field: str, weights: Mapping[Name, float]) -> None:
        if any(weight < 0 for weight in weights.values()) or sum(weights.values()) <= 0:
            raise ConfigError(f"{field}: got weights {dict(weights)}, expected none below zero and one above")
        self._names = list(weights)
        self._cumulative = list(itertools.accumulate(weights.values()))

    def __call__(self, rng: random.Random) -> Name:
        return self._names[bisect.bisect_right(self._cumulative, rng.random() * self._cumulative[-1])]


def _conversation(asking: AskingConfig, problem: Problem, solution: Solution) -> Document:
    """Tags where the answer is read between them; else as models talk that know of none, and in fewer tokens."""
    if asking.reading in ("boxed", "last_number"):
        said = solution.reasoning
        if asking.answer(said) != solution.answer:
            said = f"{said} {asking.written(solution.answer)}".lstrip()
        reply = Message("assistant", said)
    else:
        answer = solution.answer if asking.reading == "reply" else f"{ANSWER}{solution.answer}{END_ANSWER}"
        reply = Message("assistant", answer, reasoning=solution.reasoning)
    return Document(messages=(*asking.messages(problem), reply))


def _plain(problem: Problem, solution: Solution, rng: random.Random) -> Document:
    text = rng.choice(_LAYOUTS).format(question=problem.question, reasoning=solution.reasoning, answer=solution.answer)
    return Document(text=text.replace("\n\n", "\n"))
