"""Answers that somebody kept, good or corrected, as rows for octavo adapt: one conversation a line."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.data.rows import read_messages
from octavo.errors import DataError
from octavo.storage import append_jsonl


class KeptRows:
    """Appends to one file, which is chosen when the server starts. Many threads may write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()

    def add(self, turns: Sequence[Mapping[str, Any]]) -> None:
        """Append a conversation that ends with the reply to learn from.

        Raises DataError where it is none, StorageError where it cannot be written.
        """
        messages = read_messages([dict(turn) for turn in turns], "the conversation")
        roles = [message.role for message in messages]
        first = 1 if roles[0] == "system" else 0
        expected = [("user", "assistant")[number % 2] for number in range(len(roles) - first)]
        if roles[first:] != expected or roles[-1] != "assistant":
            raise DataError(f"the conversation: expected user and assistant in turns, got {', '.join(roles)}")
        if not messages[-1].content.strip():
            raise DataError("the conversation: its last answer is empty")
        rows = []
        for message in messages:
            row = {"role": message.role, "content": message.content}
            rows.append(row if message.reasoning is None else row | {"reasoning_content": message.reasoning})
        with self._turn:
            append_jsonl(self._path, [{"messages": rows}])
