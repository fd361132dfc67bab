"""Rows as documents, worked by hand."""

from typing import Any

import pytest

from octavo.data.rows import document_from_row
from octavo.errors import DataError
from octavo.text.messages import Document, Message


@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"text": " T\n", "id": 3}, Document(text=" T\n")),
        ({"prompt": "P", "completion": "C"}, Document(messages=(Message("user", "P"), Message("assistant", "C")))),
        ({"question": "Q", "answer": "4"}, Document(messages=(Message("user", "Q"), Message("assistant", "4")))),
        (
            {"question": "Q", "answer": "4", "reasoning": "2 + 2", "text": None},
            Document(messages=(Message("user", "Q"), Message("assistant", "<think>2 + 2</think><answer>4</answer>"))),
        ),
        (
            {"messages": [{"role": "system", "content": "S", "name": "x"}, {"role": "user", "content": "Q"}]},
            Document(messages=(Message("system", "S"), Message("user", "Q"))),
        ),
        (
            {"messages": [{"role": "assistant", "content": "A", "reasoning_content": "R"}]},
            Document(messages=(Message("assistant", "A", "R"),)),
        ),
        (
            {"messages": [{"role": "assistant", "content": "A", "reasoning": "R", "reasoning_content": None}]},
            Document(messages=(Message("assistant", "A", "R"),)),
        ),
    ],
)
def test_rows_worked_by_hand(row: dict[str, Any], document: Document):
    assert document_from_row(row, "here") == document


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "x", "id": 1}, "here: expected text, or messages, or prompt and completion, .*, got body, id"),
        ({}, "got no column"),
        ({"prompt": "P"}, "got prompt"),
        ({"text": 3}, "here: text must be a string, got int"),
        ({"question": "Q", "answer": 4}, "here: answer must be a string, got int"),
        ({"text": "a\ud800"}, "here: text holds a lone surrogate at character 1"),
        ({"messages": []}, "here: messages must be a list of objects"),
        ({"messages": ["hello"]}, "here: messages must be a list of objects"),
        ({"messages": [{"role": "tool", "content": ""}]}, r"here: messages\[0\]: role must be .*, got 'tool'"),
        ({"messages": [{"role": "user"}]}, r"here: messages\[0\]: content must be a string, got NoneType"),
    ],
)
def test_bad_rows_say_what_was_expected(row: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        document_from_row(row, "here")
