"""Rejection sampling (DeepSeek-R1, section 2.3.3): draw several solutions a problem, keep the right and readable ones.

Kept are replies that ended by themselves, are well formed (where answers stand between tags), have the right answer and
keep to the problem's language; of one problem at most a few different ones, the shortest first, so that easy problems
do not drown the rest and the reasoning does not swell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from octavo.config import Config
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.language import language_share
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import ChatReply, ChatRequest, Problem, SamplingParams, Teacher
from octavo.text.template import parse_reply
from octavo.world import derive_seed


class RejectionConfig(Config):
    """What is drawn and what is kept."""

    problems: int = Field(gt=0)
    """Problems of the train split."""
    samples: int = Field(default=4, gt=0)
    """Completions drawn for each problem."""
    keep: int = Field(default=2, gt=0)
    """At most so many different ones are kept of each problem."""
    max_tokens: int = Field(gt=0)
    """Longest completion, tokens."""
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    language_share: float = Field(default=0.95, ge=0, le=1)
    """Least share of the reasoning's words that are of the problem's language."""
    problems_per_chunk: int = Field(default=64, gt=0)
    """Problems handed to the teacher at once; a killed run loses at most so many."""


@dataclass(frozen=True)
class Chunk:
    """What came of one chunk of problems."""

    number: int
    rows: list[dict[str, Any]]
    """Kept samples, as rows of samples.jsonl."""
    completions: int
    correct: int
    tokens: int
    """Prompt tokens once a problem, and all completion tokens."""


def chunks(config: RejectionConfig) -> int:
    return -(-config.problems // config.problems_per_chunk)


def draw(
    config: RejectionConfig,
    mixture: TaskMixture,
    teacher: Teacher,
    seed: int,
    first: int = 0,
    asking: AskingConfig = PLAINLY,
) -> Iterator[Chunk]:
    """Yield chunk after chunk, from `first` on. A chunk is a function of config, weights, seed and its number alone."""
    params = SamplingParams(config.max_tokens, temperature=config.temperature, top_p=config.top_p)
    for number in range(first, chunks(config)):
        start = number * config.problems_per_chunk
        indices = range(start, min(start + config.problems_per_chunk, config.problems))
        problems = [mixture.problem("train", seed, index) for index in indices]
        requests = [
            ChatRequest(
                messages=asking.messages(problem),
                params=replace(params, seed=derive_seed(seed, "sample", index)),
                samples=config.samples,
            )
            for index, problem in zip(indices, problems, strict=True)
        ]
        replies = teacher.answer(requests)
        answered = [(problem, reply) for problem, group in zip(problems, replies, strict=True) for reply in group]
        grades = mixture.grade_all([(problem, asking.answer(reply.text)) for problem, reply in answered])
        right: dict[str, list[ChatReply]] = {problem.id: [] for problem in problems}
        for (problem, reply), grade in zip(answered, grades, strict=True):
            if grade.correct:
                right[problem.id].append(reply)
        rows = [
            _row(number, asking, problem, reply)
            for problem in problems
            for reply in select(problem, right[problem.id], config, asking)
        ]
        yield Chunk(
            number=number,
            rows=rows,
            completions=len(answered),
            correct=sum(map(len, right.values())),
            tokens=sum(reply.prompt_tokens + reply.tokens for _, reply in answered),
        )


def select(
    problem: Problem, right: Sequence[ChatReply], config: RejectionConfig, asking: AskingConfig = PLAINLY
) -> list[ChatReply]:
    """Of the right replies to one problem: readable, different, short ones first, at most `keep`."""
    readable = [reply for reply in right if _is_readable(problem, reply, config.language_share, asking)]
    different = {reply.text: reply for reply in readable}
    return sorted(different.values(), key=lambda reply: (reply.tokens, reply.text))[: config.keep]


def _is_readable(problem: Problem, written: ChatReply, least_share: float, asking: AskingConfig) -> bool:
    if written.finish_reason != "stop":
        return False
    reply = parse_reply(written.text)
    said = reply.reasoning or ""
    if asking.reading == "tags":
        if not reply.well_formed or not said.strip():
            return False
    else:  # models that know no tags reason in the open
        said = written.text
    return language_share(said, problem.language, quoted=problem.question) >= least_share


def _row(number: int, asking: AskingConfig, problem: Problem, reply: ChatReply) -> dict[str, Any]:
    return {
        "step": number,
        "problem": problem.id,
        "task": problem.task,
        "messages": [
            *({"role": message.role, "content": message.content} for message in asking.messages(problem)),
            {"role": "assistant", "content": reply.text},
        ],
    }
