"""The nouns of verifiable problems: Problem, Completion, Grade, Rollout, and who produces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from octavo.text.messages import Message

Split = Literal["train", "held_out"]
FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Problem:
    """A question with a gold answer. `id` is stable: the same task, split, seed and index give the same problem."""

    id: str
    task: str
    question: str
    answer: str
    language: str = "en"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    context: tuple[Message, ...] = ()
    """What stands before the question: a system message, earlier turns."""


class GradeStatus(StrEnum):
    """How grading went. Only OK and NO_ANSWER are scores; the others are masked and counted, never 0.0."""

    OK = "ok"
    NO_ANSWER = "no_answer"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Grade:
    """What a verifier says of one answer. `score` in [0, 1]; meaningful if `status` is OK or NO_ANSWER (then 0)."""

    status: GradeStatus
    score: float = 0.0
    detail: str = ""

    @property
    def scored(self) -> bool:
        return self.status in (GradeStatus.OK, GradeStatus.NO_ANSWER)

    @property
    def correct(self) -> bool:
        """Full score. Verifiers give partial scores for near misses and padded answers; only this one earns reward."""
        return self.status is GradeStatus.OK and self.score >= 1 - 1e-9


@dataclass(frozen=True)
class SamplingParams:
    """How to draw a completion. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 leave the distribution whole."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class CompletionRequest:
    """`samples` completions of one prompt (token ids). The prompt is prefilled once for the whole group."""

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    samples: int = 1


@dataclass(frozen=True)
class Completion:
    """What was drawn. `ids` ends with the end-of-sequence token if `finish_reason` is "stop" by token.

    `logprobs[i]` is the log-probability (nats) of `ids[i]` under the model's own distribution at temperature 1,
    untruncated, whatever the sampling values were. `text` is decoded without the end token and the stop string.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    cached_tokens: int = 0
    """Of the prompt: known from prompts before, and not read again."""


class Completer(Protocol):
    """Prompts in, completions out: all that training knows of an engine."""

    def complete(self, requests: Sequence[CompletionRequest]) -> list[list[Completion]]:
        """One list of `samples` completions for each request, in order."""
        ...


@dataclass(frozen=True)
class ChatRequest:
    """`samples` replies to one conversation, which ends with the user's turn."""

    messages: tuple[Message, ...]
    params: SamplingParams
    samples: int = 1


@dataclass(frozen=True)
class ChatReply:
    """What a teacher wrote: reasoning, if it is given apart, stands in front between its tags."""

    text: str
    finish_reason: FinishReason
    tokens: int
    """Of the reply."""
    prompt_tokens: int = 0
    """Of the conversation before it; on the first reply to a request only."""


class Teacher(Protocol):
    """Whoever is asked in conversations: a model here, or one behind a server."""

    def answer(self, requests: Sequence[ChatRequest]) -> list[list[ChatReply]]:
        """One list of `samples` replies for each request, in order."""
        ...


@dataclass(frozen=True)
class Rollout:
    """A completion of a problem with its grade and the parts of its reward (name -> value)."""

    problem: Problem
    completion: Completion
    grade: Grade
    rewards: Mapping[str, float]

    @property
    def reward(self) -> float:
        return sum(self.rewards.values())
