"""What the engine works on: a `Group` is one request, a `Sequence` one of its samples."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from octavo.engine.constraint import Constraint
from octavo.engine.drawn import DrawnToken
from octavo.engine.runner import Prefix
from octavo.engine.transcript import Transcript
from octavo.tasks.types import Completion, CompletionRequest


@dataclass(eq=False)
class Sequence:
    """One sample. While it runs, its tokens and numbers lie in the arrays of `Slots`, at its row."""

    group: Group
    sample: int
    transcript: Transcript | None
    """None: no stop strings and not streamed, so that nobody reads its text before the end."""
    constraint: Constraint | None = None
    told: list[DrawnToken] = field(default_factory=list)
    """Tokens that no Event has told of yet; only if the request asks for them."""

    def take_told(self) -> tuple[DrawnToken, ...]:
        """What the next Event tells of tokens."""
        told, self.told = tuple(self.told), []
        return told


@dataclass(eq=False)
class Group:
    """One request. Its prompt is read once and its cache row copied to every sample."""

    request_id: int
    request: CompletionRequest
    streamed: bool
    limit: int
    """Most tokens that a sample may draw: max_tokens, or what fits into the cache."""
    waiting: deque[Sequence] = field(default_factory=deque)
    """Samples that have no row yet."""
    top_logprobs: int | None = None
    """Alternatives that are told of each token; None: tokens are not told."""
    prefix: Prefix | None = None
    """The prompt, read; kept until the last sample has its row."""
    cached_tokens: int = 0
    """Of the prompt, that were known before and not read."""


@dataclass(frozen=True)
class Event:
    """News of one sample: text that became certain (streamed requests only), and at its end the completion.

    `tokens` are those drawn since the event before, if the request asked for them.
    """

    request_id: int
    sample: int
    text: str = ""
    completion: Completion | None = None
    tokens: tuple[DrawnToken, ...] = ()
