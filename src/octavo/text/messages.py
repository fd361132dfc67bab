"""What a conversation is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn. `content` is what is shown; `reasoning` (assistant only) is what stood inside `<think>`.

    A `tool` turn is what a function returned that the assistant had called.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Of the assistant: `{"type": "function", "function": {"name": ..., "arguments": {...}}}`, as templates read it."""


@dataclass(frozen=True)
class Document:
    """One unit of training text: plain `text`, or a conversation. Exactly one of the two is set."""

    text: str | None = None
    messages: tuple[Message, ...] = ()
