"""What is asked of a model, and what comes back piece by piece: the nouns of the API, the pages and the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from octavo.text.messages import Message

EndReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How to draw. `max_tokens` None: the server's default; `seed` None: another one each time."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    samples: int = 1
    top_logprobs: int | None = None
    """Likeliest alternatives that are told of each token; None: tokens are not told."""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of its arguments."""
    strict: bool = False
    """Refuse schemas of which a part cannot be enforced."""


@dataclass(frozen=True)
class ToolUse:
    """Which functions may be called, and whether one must."""

    tools: tuple[Tool, ...] = ()
    required: bool = False
    only: str | None = None
    """This one must be called."""
    parallel: bool = True
    """Several calls in one reply."""


@dataclass(frozen=True)
class JsonFormat:
    """The answer must be JSON of this schema."""

    schema: Mapping[str, Any]
    strict: bool = False
    """Refuse schemas of which a part cannot be enforced."""


@dataclass(frozen=True)
class ChatCall:
    """The next turn of a conversation."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    thinking: bool | None = None
    """Whether to reason first; None: as the chat template's author chose."""
    reasoning_effort: str | None = None
    tool_use: ToolUse = ToolUse()
    json_format: JsonFormat | None = None
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class TextCall:
    """Plain text, or token ids, to be continued."""

    model: str
    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class ToolCall:
    """A function call that the model has written. `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Token:
    """One token of a reply. `bytes`: part of a character, perhaps. `logprob`: nats, of the model's own distribution."""

    bytes: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()
    """The likeliest at its place, likeliest first."""


@dataclass(frozen=True)
class Scored:
    """A prompt, token by token."""

    text: str
    tokens: tuple[Token, ...]
    """The first has no log-prob: it stands as NaN."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one or several samples of a prompt."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the completion."""
    cached_tokens: int = 0
    """Of the prompt: not read anew, because a prompt before had begun alike."""

    def with_sample(self, other: Usage) -> Usage:
        """Both together, of one prompt, which counts once."""
        return Usage(
            max(self.prompt_tokens, other.prompt_tokens),
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            max(self.cached_tokens, other.cached_tokens),
        )


@dataclass(frozen=True)
class End:
    """How a sample ended."""

    finish_reason: EndReason
    usage: Usage


@dataclass(frozen=True)
class Delta:
    """What became known of sample `index`; the pieces of one sample add up."""

    index: int
    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: tuple[Token, ...] = ()
    """Of the content, if the call asked for them."""
    end: End | None = None
