"""Shapes worked by hand: which column asks, what is imitated, what is checked, what goes to the verifier."""

from typing import Any

import pytest

from octavo.data.examples import Example
from octavo.data.shapes import detect_shape
from octavo.data.tables import Row
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Message


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning)


def read(values: dict[str, Any], **chosen: str) -> Example:
    shape = detect_shape(dict.fromkeys(values, "here"), chosen)
    return shape.read(Row("here", values))


TURNS = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
REPLY = {"role": "assistant", "content": "A", "reasoning_content": "R"}


@pytest.mark.parametrize(
    ("values", "messages", "answer", "reply", "metadata"),
    [
        ({"question": "Q", "answer": 4}, (user("Q"),), "4", None, {}),
        ({"Question": "Q", "Answer": "4", "level": 2}, (user("Q"),), "4", None, {"level": 2}),
        (
            {"question": "Q", "reasoning": "2 + 2", "answer": "4"},
            (user("Q"),), "4", assistant("<think>2 + 2</think><answer>4</answer>"), {},
        ),
        ({"problem": "Q", "solution": "So 4."}, (user("Q"),), None, assistant("So 4."), {}),
        (
            {"question": "Q", "answer": "He has 2.\nSo 2 + 2 = 4.\n#### 4"},
            (user("Q"),), "4", assistant("<think>He has 2.\nSo 2 + 2 = 4.</think><answer>4</answer>"), {},
        ),
        ({"question": "Q", "answer": "#### Heading\ntext"}, (user("Q"),), "#### Heading\ntext", None, {}),
        ({"instruction": "Add", "input": "2, 2", "output": "4"}, (user("Add\n\n2, 2"),), None, assistant("4"), {}),
        ({"instruction": "Add", "input": " ", "output": "4"}, (user("Add"),), None, assistant("4"), {}),
        ({"question": "Q", "input": "i", "answer": "4"}, (user("Q"),), "4", None, {"input": "i"}),
        (
            {"instruction": "Q", "reasoning": "R", "response": "4", "ground_truth": 4.5},
            (user("Q"),), "4.5", assistant("<think>R</think>4"), {},
        ),
        ({"prompt": "P", "completion": "C"}, (user("P"),), None, assistant("C"), {}),
        (
            {"prompt": TURNS, "completion": [REPLY]},
            (Message("system", "S"), user("Q")), None, assistant("A", "R"), {},
        ),
        (
            {"prompt": TURNS, "answer": "4", "tests": ["assert f(1)"]},
            (Message("system", "S"), user("Q")), "4", None, {"tests": ["assert f(1)"]},
        ),
        ({"prompt": "P", "solution": "x"}, (user("P"),), None, None, {"solution": "x"}),
        ({"messages": [*TURNS, REPLY]}, (Message("system", "S"), user("Q")), None, assistant("A", "R"), {}),
        ({"messages": TURNS, "answer": "4"}, (Message("system", "S"), user("Q")), "4", None, {}),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "id": "x"},
            (user("Q"),), None, assistant("A"), {"id": "x"},
        ),
    ],
)  # fmt: skip
def test_rows_worked_by_hand(values: dict, messages: tuple, answer: str | None, reply: Message | None, metadata: dict):
    assert read(values) == Example(messages, answer, reply, metadata, "here")


def test_columns_can_be_named():
    row = {"frage": "Q", "antwort": "4", "prompt": "not this", "answer": "nor this"}
    assert read(row, question="frage", answer="antwort") == Example(
        (user("Q"),), "4", None, {"prompt": "not this", "answer": "nor this"}, "here"
    )
    with pytest.raises(ConfigError, match=r"no role 'questoin' \(did you mean question\?\)"):
        read(row, questoin="frage")
    with pytest.raises(ConfigError, match=r"column 'fragen', which is not there \(did you mean frage\?\)"):
        read(row, question="fragen")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("text id", "x: no column asks anything: expected messages, .*, got text, id$"),
        ("promt answer", r"x: no column asks anything: .*: promt \(did you mean prompt\?\)"),
        (
            "question anwser",
            r"x: expected answer, solution or output beside question, .*: anwser \(did you mean answer\?",
        ),
        (
            "prompt question answer",
            r"several columns could be the question: prompt \(first at x\), question \(first at x",
        ),
        ("question answer ground_truth", r"several columns could be the answer: .* columns: \{answer: answer\}"),
        ("problem solution reasoning", "several columns could be the reasoning"),
    ],
)
def test_columns_of_no_shape_or_of_several_are_refused(columns: str, message: str):
    with pytest.raises(DataError, match=message):
        detect_shape(dict.fromkeys(columns.split(), "x"), {})


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        ("question answer", {"answer": "4"}, "here: expected question, got answer"),
        ("question answer", {"question": " ", "answer": "4"}, "here: question is blank"),
        ("question answer", {"question": "Q"}, "here: nothing to learn from or to check: expected answer beside"),
        ("question answer solution", {"question": "Q", "answer": " "}, "expected solution or answer beside question"),
        ("question answer", {"question": "Q", "answer": True}, "here: answer must be text or a number, got bool"),
        ("question answer", {"question": "Q", "answer": ["4"]}, "here: answer must be text or a number, got list"),
        ("question answer", {"question": "Q", "answer": float("nan")}, "here: answer must be text or a finite number"),
        ("question answer", {"question": "a\ud800", "answer": "4"}, "here: question holds a lone surrogate"),
        ("prompt gold", {"prompt": "P"}, "here: nothing to learn from or to check: expected an answer beside prompt"),
        ("prompt gold", {"prompt": [REPLY], "gold": 1}, "here: prompt must end with a question of the user's"),
        ("prompt gold", {"prompt": ["P"], "gold": 1}, "here: prompt must be a list of objects with role and content"),
        ("prompt completion", {"prompt": "P", "completion": TURNS}, "completion must be one message of the assistant"),
        ("messages", {"messages": "hello"}, "here: messages must be a list of objects"),
        ("messages", {"messages": [TURNS[0], REPLY]}, "here: messages must end with a question of the user's"),
        ("messages", {"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\]: role must be one of system"),
        ("conversations", {"conversations": [{"from": "me", "value": "x"}]}, r"\[0\]: from must be one of"),
        ("conversations", {"conversations": [{"from": "gpt"}]}, r"conversations\[0\]: content must be a string"),
    ],
)  # fmt: skip
def test_wrong_rows_say_what_was_expected(columns: str, values: dict[str, Any], message: str):
    shape = detect_shape(dict.fromkeys(columns.split(), "x"), {})
    with pytest.raises(DataError, match=message):
        shape.read(Row("here", values))
