"""One row of a JSONL or Parquet file as a Document."""

from collections.abc import Mapping
from typing import Any, get_args

from octavo.errors import DataError
from octavo.text.messages import Document, Message, Role
from octavo.text.template import format_reply

COLUMNS = ("text", "messages", "prompt", "completion", "question", "answer", "reasoning")
"""All columns that are read; others are ignored."""
_EXPECTED = "text, or messages, or prompt and completion, or question and answer"


def document_from_row(row: Mapping[str, Any], where: str) -> Document:
    """Read the first of: `text`; `messages` (role, content and, if apart, reasoning_content or reasoning); `prompt` and
    `completion`; `question` and `answer`, with a `reasoning` as a well-formed reply. Null is absent.

    Raises DataError that begins with `where`.
    """
    present = {key for key in COLUMNS if row.get(key) is not None}
    if "text" in present:
        return Document(text=_string(row, "text", where))
    if "messages" in present:
        return Document(messages=_messages(row["messages"], where))
    if present >= {"prompt", "completion"}:
        return _exchange(_string(row, "prompt", where), _string(row, "completion", where))
    if present >= {"question", "answer"}:
        answer = _string(row, "answer", where)
        reply = format_reply(_string(row, "reasoning", where), answer) if "reasoning" in present else answer
        return _exchange(_string(row, "question", where), reply)
    raise DataError(f"{where}: expected {_EXPECTED}, got {', '.join(map(str, row)) or 'no column'}")


def _exchange(prompt: str, reply: str) -> Document:
    return Document(messages=(Message("user", prompt), Message("assistant", reply)))


def _messages(turns: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f"{where}: messages must be a list of objects with role and content")
    messages = []
    for number, turn in enumerate(turns):
        at = f"{where}: messages[{number}]"
        if turn.get("role") not in get_args(Role):
            raise DataError(f"{at}: role must be one of {', '.join(get_args(Role))}, got {turn.get('role')!r}")
        reasoning = next((key for key in ("reasoning_content", "reasoning") if turn.get(key) is not None), None)
        messages.append(
            Message(turn["role"], _string(turn, "content", at), _string(turn, reasoning, at) if reasoning else None)
        )
    return tuple(messages)


def _string(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} must be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can say half of a UTF-16 pair: "\ud800"
        raise DataError(f"{where}: {key} holds a lone surrogate at character {error.start}") from error
    return value
