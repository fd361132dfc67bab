import json
from collections import Counter

import pytest

from octavo.errors import DataError
from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig


def task(path, **values):
    return JsonlTask(JsonlTaskConfig.parse({"path": str(path), **values}))


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "capitals.jsonl"
    rows = [{"question": f"What is {n} squared?", "answer": n * n} for n in range(100)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_an_epoch_holds_each_question_once_in_another_order(questions):
    squares = task(questions)
    size = len({squares.problem("train", 0, i).question for i in range(200)})
    held_out = len({squares.problem("held_out", 0, i).question for i in range(200)})
    assert size + held_out == 100
    assert 5 <= held_out <= 25
    epochs = [[squares.problem("train", 0, epoch * size + i).question for i in range(size)] for epoch in range(2)]
    assert all(set(Counter(epoch).values()) == {1} for epoch in epochs)
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    again = [task(questions).problem("train", 0, i).question for i in range(size)]
    assert again == epochs[0]


def test_measure_only_holds_out_the_whole_file(questions):
    squares = task(questions, measure_only=True)
    assert len({squares.problem("held_out", 0, i).question for i in range(100)}) == 100
    with pytest.raises(DataError, match="none of its questions falls into the train split"):
        squares.problem("train", 0, 0)


def test_splits_share_no_question_even_if_a_line_is_repeated(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"Q {n % 20}", "answer": "a"}) for n in range(60)))
    twice = task(path)
    splits = [{twice.problem(split, 0, i).question for i in range(100)} for split in ("train", "held_out")]
    assert splits[0]
    assert not splits[0] & splits[1]


def test_each_verifier_judges_in_its_way(questions):
    problem = task(questions).problem("train", 0, 0)
    gold = problem.answer
    assert task(questions).grade(problem, f" {gold}.0 ").correct
    assert not task(questions).grade(problem, f"{gold} or {gold}").correct
    near = str(int(gold) + 1)
    assert task(questions, verifier="numeric", tolerance=1.0).grade(problem, near).correct
    assert not task(questions, verifier="numeric").grade(problem, near).correct
    assert task(questions, verifier="math").grade(problem, f"{gold}+1-1").correct


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object with 'question' and 'answer'"),
        ('{"question": "a", "anwser": "b"}', r"line 2: no key 'answer' \(did you mean anwser\?\)"),
        ('{"question": "", "answer": "b"}', "line 2: question must be text or a number, got ''"),
        ('{"question": "q", "answer": null}', "line 2: answer must be text or a number, got None"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' + line)
    with pytest.raises(DataError, match=message):
        task(path)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        task(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(DataError, match="not UTF-8 at byte 17"):
        task(tmp_path / "latin.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="holds no question"):
        task(tmp_path / "empty.jsonl")
    (tmp_path / "words.jsonl").write_text('{"question": "q", "answer": "many"}')
    with pytest.raises(DataError, match="needs a number as answer, got 'many'"):
        task(tmp_path / "words.jsonl", verifier="numeric")


def test_an_empty_split_says_what_to_do(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"question": "q", "answer": "a"}')
    with pytest.raises(DataError, match="add questions"):
        [task(path).problem(split, 0, 0) for split in ("train", "held_out")]
