"""Which column of a user's table asks, which answers, which is checked: the shapes that the ecosystem knows.

what asks                                     what is imitated                    what is checked
messages, or conversations (ShareGPT)         the last turn, if the assistant's   answer
prompt (text or messages)                     completion (text or messages)       answer
question, problem, or instruction (+ input)   completion; reasoning               answer

completion may also be called output or response, reasoning solution, answer ground_truth; capitals do not count. An
answer whose last line is "#### 72" (GSM8K) is a solution with its answer. All other columns are metadata: TRL's
prompt with extra columns is the second line without a completion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

from octavo.config import nearest
from octavo.data.examples import Example
from octavo.data.rows import read_messages, read_text
from octavo.data.tables import Row
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Message
from octavo.text.template import END_THINK, THINK, format_reply

Role = Literal["messages", "prompt", "question", "input", "completion", "reasoning", "answer"]
ROLES: tuple[Role, ...] = get_args(Role)

_NAMES: dict[Role, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt",),
    "question": ("question", "problem", "instruction"),
    "input": ("input",),
    "completion": ("completion", "output", "response"),
    "reasoning": ("reasoning", "solution"),
    "answer": ("answer", "ground_truth"),
}
_BESIDE: dict[Role, tuple[Role, ...]] = {
    "messages": ("answer",),
    "prompt": ("completion", "answer"),
    "question": ("input", "completion", "reasoning", "answer"),
}
"""By what asks: what may stand beside it."""
_EXPECTED = (
    "messages, or conversations, or prompt (with completion, answer or others), or question (or problem, instruction) "
    "with answer, solution or output"
)
_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_GSM8K = re.compile(r"(.*\S)\s*\n####[ \t]*(\S.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Shape:
    """The columns of a table by the role they play; the others are metadata."""

    asks: Role
    columns: Mapping[Role, str]
    metadata: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = f", metadata {', '.join(self.metadata)}" if self.metadata else ""
        return "/".join(self.columns.values()) + extra

    def read(self, row: Row) -> Example:
        """Raises DataError, beginning with `row.where`, that says what was expected."""
        messages = self._messages(row)
        reply = None
        if messages[-1].role == "assistant" and self.asks == "messages":
            *messages, reply = messages
        if not messages or messages[-1].role != "user":
            raise DataError(f"{row.where}: {self.columns[self.asks]} must end with a question of the user's")
        answer = self._text(row, "answer")
        reasoning = self._text(row, "reasoning")
        if answer is not None and reasoning is None and (worked := _GSM8K.fullmatch(answer)):
            reasoning, answer = worked[1], worked[2]
        metadata = {name: row.values[name] for name in self.metadata if name in row.values}
        reply = reply or self._reply(row, reasoning, answer)
        if reply is None and answer is None and (self.asks == "question" or not metadata):
            asked = [column for role, column in self.columns.items() if role != self.asks and role != "input"]
            raise DataError(
                f"{row.where}: nothing to learn from or to check: expected {' or '.join(asked) or 'an answer'} beside "
                f"{self.columns[self.asks]}"
            )
        return Example(tuple(messages), answer, reply, metadata, row.where)

    def _messages(self, row: Row) -> tuple[Message, ...]:
        column = self.columns[self.asks]
        value = row.values.get(column)
        if value is None or value == "":
            got = ", ".join(name for name, value in row.values.items() if value != "")
            raise DataError(f"{row.where}: expected {column}, got {got or 'an empty row'}")
        if self.asks == "messages" or (self.asks == "prompt" and isinstance(value, list)):
            return read_messages(_from_sharegpt(value, f"{row.where}: {column}"), row.where, column)
        question, more = self._text(row, self.asks), self._text(row, "input")
        if question is None:
            raise DataError(f"{row.where}: {column} is blank")
        return (Message("user", question if more is None else f"{question}\n\n{more}"),)

    def _reply(self, row: Row, reasoning: str | None, answer: str | None) -> Message | None:
        column = self.columns.get("completion")
        value = row.values.get(column) if column else None
        if isinstance(value, list):
            turns = read_messages(value, row.where, column or "")
            if len(turns) != 1 or turns[0].role != "assistant":
                raise DataError(f"{row.where}: {column} must be one message of the assistant's, got {len(turns)}")
            return turns[0]
        completion = self._text(row, "completion")
        if reasoning is None:
            return None if completion is None else Message("assistant", completion)
        if completion is not None:
            return Message("assistant", f"{THINK}{reasoning}{END_THINK}{completion}")
        return Message("assistant", reasoning if answer is None else format_reply(reasoning, answer))

    def _text(self, row: Row, role: Role) -> str | None:
        """Text, or a number as text; None where it is absent or blank."""
        column = self.columns.get(role)
        value = row.values.get(column) if column else None
        if column is None or value is None:
            return None
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise DataError(f"{row.where}: {column} must be text or a finite number, got {value}")
            return str(value)
        if not isinstance(value, str):
            raise DataError(f"{row.where}: {column} must be text or a number, got {type(value).__name__}")
        return read_text(row.values, column, row.where) if value.strip() else None


def detect_shape(columns: Mapping[str, str], chosen: Mapping[str, str]) -> Shape:
    """The shape of a table by its `columns` (each with the place where it first occurs).

    `chosen` says which column plays which role, where names do not: {"question": "frage"}. Raises DataError if no shape
    fits or several do, ConfigError for a role or a column that does not exist.
    """
    _check_chosen(columns, chosen)
    found: dict[Role, list[str]] = {}
    for role in ROLES:
        names = [name for name in columns if name.casefold() in _NAMES[role] and name not in chosen.values()]
        found[role] = [chosen[role]] if chosen.get(role) else names
    asking: list[Role] = [role for role in _BESIDE if chosen.get(role)]
    asking = asking or [role for role in _BESIDE if found[role]]
    candidates = [column for role in asking for column in found[role]]
    if not candidates:
        raise DataError(
            f"{_first_place(columns)}: no column asks anything: expected {_EXPECTED}, got "
            f"{', '.join(columns) or 'no column'}{_near_miss(columns)}"
        )
    asks = asking[0]
    _only_one(candidates, columns, asks, "question")
    beside: list[Role] = [role for role in _BESIDE[asks] if found[role]]
    if candidates[0].casefold() != "instruction" and "input" not in chosen:
        beside = [role for role in beside if role != "input"]
    for role in beside:
        _only_one(found[role], columns, role, role)
    if asks == "question" and not {"completion", "reasoning", "answer"} & set(beside):
        raise DataError(
            f"{columns[candidates[0]]}: expected answer, solution or output beside {candidates[0]}, got "
            f"{', '.join(columns)}{_near_miss(columns)}"
        )
    roles: dict[Role, str] = {role: found[role][0] for role in (asks, *beside)}
    return Shape(asks, roles, tuple(name for name in columns if name not in roles.values()))


def _check_chosen(columns: Mapping[str, str], chosen: Mapping[str, str]) -> None:
    for role, column in chosen.items():
        if role not in ROLES:
            raise ConfigError(f"columns: no role {role!r}{nearest(role, ROLES)}")
        if column not in columns:
            raise ConfigError(
                f"columns: {role} is to be column {column!r}, which is not there{nearest(column, columns)}"
            )


def _only_one(candidates: list[str], columns: Mapping[str, str], role: Role, what: str) -> None:
    if len(candidates) > 1:
        places = ", ".join(f"{column} (first at {columns[column]})" for column in candidates)
        raise DataError(
            f"{_first_place(columns)}: several columns could be the {what}: {places}; "
            f"remove all but one, or say which it is: columns: {{{role}: {candidates[0]}}}"
        )


def _first_place(columns: Mapping[str, str]) -> str:
    return next(iter(columns.values()), "the data")


def _near_miss(columns: Mapping[str, str]) -> str:
    """A name that was probably misspelt."""
    known = [name for names in _NAMES.values() for name in names]
    hints = {column: nearest(column.casefold(), known) for column in columns if column.casefold() not in known}
    return next((f": {column}{hint}" for column, hint in hints.items() if "did you mean" in hint), "")


def _from_sharegpt(turns: Any, where: str) -> Any:
    """Turns with from and value become turns with role and content; others are left as they are."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) and "from" in turn for turn in turns):
        return turns
    renamed = []
    for number, turn in enumerate(turns):
        if turn["from"] not in _SPEAKERS:
            raise DataError(f"{where}[{number}]: from must be one of {', '.join(_SPEAKERS)}, got {turn['from']!r}")
        renamed.append({"role": _SPEAKERS[turn["from"]], "content": turn.get("value")})
    return renamed
