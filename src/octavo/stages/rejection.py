"""Rejection sampling (DeepSeek-R1, section 2.3.3): draw several solutions a problem, keep the right and readable ones.

Kept are completions that ended by themselves, are well formed, have the right answer and keep to the problem's
language; of one problem at most a few different ones, the shortest first, so that easy problems do not drown the rest
and the reasoning does not swell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from octavo.config import Config
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.language import language_share
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import Completer, Completion, CompletionRequest, Problem, SamplingParams
from octavo.text.template import parse_reply
from octavo.text.tokenizer import Tokenizer
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
    """Problems handed to the engine at once; a killed run loses at most so many."""


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
    completer: Completer,
    tokenizer: Tokenizer,
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
            CompletionRequest(
                prompt_ids=asking.prompt(tokenizer, problem),
                params=replace(params, seed=derive_seed(seed, "sample", index)),
                samples=config.samples,
            )
            for index, problem in zip(indices, problems, strict=True)
        ]
        drawn = completer.complete(requests)
        rows, correct = [], 0
        for problem, completions in zip(problems, drawn, strict=True):
            right = [
                completion
                for completion in completions
                if mixture.grade(problem, asking.answer(completion.text)).correct
            ]
            correct += len(right)
            rows += [_row(number, asking, problem, completion) for completion in select(problem, right, config)]
        yield Chunk(
            number=number,
            rows=rows,
            completions=sum(map(len, drawn)),
            correct=correct,
            tokens=sum(len(request.prompt_ids) for request in requests)
            + sum(len(c.ids) for group in drawn for c in group),
        )


def select(problem: Problem, right: Sequence[Completion], config: RejectionConfig) -> list[Completion]:
    """Of the right completions of one problem: readable, different, short ones first, at most `keep`."""
    readable = [completion for completion in right if _is_readable(problem, completion, config.language_share)]
    different = {completion.text: completion for completion in readable}
    return sorted(different.values(), key=lambda completion: (len(completion.ids), completion.text))[: config.keep]


def _is_readable(problem: Problem, completion: Completion, least_share: float) -> bool:
    reply = parse_reply(completion.text)
    if completion.finish_reason != "stop" or not reply.well_formed or not (reply.reasoning or "").strip():
        return False
    return language_share(reply.reasoning or "", problem.language, quoted=problem.question) >= least_share


def _row(number: int, asking: AskingConfig, problem: Problem, completion: Completion) -> dict[str, Any]:
    return {
        "step": number,
        "problem": problem.id,
        "task": problem.task,
        "messages": [
            *({"role": message.role, "content": message.content} for message in asking.messages(problem)),
            {"role": "assistant", "content": completion.text},
        ],
    }
