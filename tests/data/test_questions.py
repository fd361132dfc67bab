"""Files of questions read whole, and what trainers take from them."""

import json
from pathlib import Path

import pytest

from octavo.data.examples import Example
from octavo.data.questions import read_questions
from octavo.errors import DataError
from octavo.tasks.types import Problem
from octavo.text.messages import Document, Message


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_files_of_several_kinds_are_one_set_of_questions(tmp_path: Path):
    write(tmp_path / "a.jsonl", {"question": "1 + 1", "answer": 2, "solution": "One more."})
    (tmp_path / "b.csv").write_text("question,answer\n2 + 2,4\n")
    (tmp_path / "notes.txt").write_text("not a table")
    questions = read_questions([tmp_path])
    assert [example.answer for example in questions.examples] == ["2", "4"]
    assert [example.where for example in questions.examples] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/b.csv:2"]
    assert questions.describe() == (
        f"{tmp_path}/a.jsonl, {tmp_path}/b.csv: 2 rows of question/solution/answer; "
        "2 with an answer to check, 1 with a worked answer to learn from"
    )


def test_a_shape_may_show_in_later_rows_only(tmp_path: Path):
    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2", "solution": "because"}]
    examples = read_questions([write(tmp_path / "a.jsonl", *rows)]).examples
    assert examples[0].reply is None
    assert examples[1].reply == Message("assistant", "<think>because</think><answer>2</answer>")


def test_mixed_shapes_are_refused_with_both_places(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", {"question": "a", "answer": "1"}, {"prompt": "b", "completion": "2"})
    with pytest.raises(DataError, match=rf"prompt \(first at {path}:2\), question \(first at {path}:1\)"):
        read_questions([path])


def test_wrong_rows_of_all_files_are_told_together(tmp_path: Path):
    write(tmp_path / "a.jsonl", {"question": "a", "answer": "1"}, 7, {"question": "b"})
    (tmp_path / "b.csv").write_text("question,answer\n,4\nx\n")
    with pytest.raises(DataError) as caught:
        read_questions([tmp_path])
    lines = str(caught.value).replace(f"{tmp_path}/", "").split("\n  ")
    assert lines[0] == "4 rows cannot be used; mend or remove them:"
    assert {line.split(": ")[0] for line in lines[1:]} == {"a.jsonl:2", "a.jsonl:3", "b.csv:2", "b.csv:3"}


def test_nothing_at_all_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="holds no question"):
        read_questions([write(tmp_path / "a.jsonl")])
    (tmp_path / "a.txt").write_text("question")
    with pytest.raises(DataError, match=r"expected \.jsonl, \.json, \.csv"):
        read_questions([tmp_path / "a.txt"])


def test_an_example_becomes_a_document_and_a_problem():
    asked = (Message("system", "S"), Message("user", "Q"))
    example = Example(asked, "4", None, {"unit": "mg"}, "a.csv:2")
    reply = Message("assistant", "<answer>4</answer>")
    assert example.document() == Document(messages=(*asked, reply))
    other = (Message("user", "Q!"),)
    assert example.document(other) == Document(messages=(*other, reply))
    assert example.problem("dose", "sw") == Problem(
        "a.csv:2", "dose", "Q", "4", "sw", {"unit": "mg"}, (Message("system", "S"),)
    )
    worked = Message("assistant", "W")
    assert Example(asked, "4", worked).document() == Document(messages=(*asked, worked))
    unanswered = Example(asked, metadata={"tests": []})
    assert unanswered.document() is None
    assert unanswered.problem("code").answer == ""
