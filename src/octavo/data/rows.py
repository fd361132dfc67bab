"""One row of a JSONL or Parquet file as a Document."""

from collections.abc import Mapping
from typing import Any

from octavo.errors import DataError
from octavo.text.messages import Document, Message
from octavo.text.template import format_reply

COLUMNS = ("text", "messages", "prompt", "completion", "question", "answer", "reasoning")
"""All columns that are read; others are ignored."""
_ROLES = ("system", "user", "assistant")
_EXPECTED = "text, or messages, or prompt and completion, or question and answer"


def document_from_row(row: Mapping[str, Any], where: str) -> Document:
    """Read the first of: `text`; `messages` (role, content and, if apart, reasoning_content or reasoning); `prompt` and
    `completion`; `question` and `answer`, with a `reasoning` as a well-formed reply. Null is absent.

    Raises DataError that begins with `where`.
    """
    present = {key for key in COLUMNS if row.get(key) is not None}
    if "text" in present:
        return Document(text=read_text(row, "text", where))
    if "messages" in present:
        return Document(messages=read_messages(row["messages"], where))
    if present >= {"prompt", "completion"}:
        return _exchange(read_text(row, "prompt", where), read_text(row, "completion", where))
    if present >= {"question", "answer"}:
        answer = read_text(row, "answer", where)
        reply = format_reply(read_text(row, "reasoning", where), answer) if "reasoning" in present else answer
        return _exchange(read_text(row, "question", where), reply)
    raise DataError(f"{where}: expected {_EXPECTED}, got {', '.join(map(str, row)) or 'no column'}")


def _exchange(prompt: str, reply: str) -> Document:
    return Document(messages=(Message("user", prompt), Message("assistant", reply)))


def read_messages(turns: Any, where: str, column: str = "messages") -> tuple[Message, ...]:
    """A list of objects with role, content and, if apart, reasoning_content or reasoning. Raises DataError."""
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f"{where}: {column} must be a list of objects with role and content")
    messages = []
    for number, turn in enumerate(turns):
        at = f"{where}: {column}[{number}]"
        if turn.get("role") not in _ROLES:
            raise DataError(f"{at}: role must be one of {', '.join(_ROLES)}, got {turn.get('role')!r}")
        reasoning = next((key for key in ("reasoning_content", "reasoning") if turn.get(key) is not None), None)
        messages.append(
            Message(turn["role"], read_text(turn, "content", at), read_text(turn, reasoning, at) if reasoning else None)
        )
    return tuple(messages)


def read_text(row: Mapping[str, Any], key: str, where: str) -> str:
    """The string under `key`. Raises DataError for another type, or text that UTF-8 cannot say."""
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} must be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can say half of a UTF-16 pair: "\ud800"
        raise DataError(f"{where}: {key} holds a lone surrogate at character {error.start}") from error
    return value
