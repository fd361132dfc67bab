"""What a conversation is made of."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn. `content` is what is shown; `reasoning` (assistant only) is what stood inside `<think>`."""

    role: Role
    content: str
    reasoning: str | None = None


@dataclass(frozen=True)
class Document:
    """One unit of training text: plain `text`, or a conversation. Exactly one of the two is set."""

    text: str | None = None
    messages: tuple[Message, ...] = ()
