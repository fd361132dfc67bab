"""A user's questions as a task: three parts that share no question, columns for the verifier, worked answers."""

import json

import pytest

from octavo.errors import DataError
from octavo.tasks.asking import AskingConfig
from octavo.tasks.questions import QuestionsTask, QuestionsTaskConfig


def task(path, **values):
    return QuestionsTask(QuestionsTaskConfig.parse({"kind": "questions", "paths": [str(path)]} | values))


def rows_in(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def sums(tmp_path):
    return rows_in(tmp_path / "sums.jsonl", [{"question": f"{n} + 1?", "answer": n + 1} for n in range(100)])


def asked(task, split, seed=0, epochs=1):
    count = {"train": task.sets.train, "held_out": task.sets.held_out}[split]
    return [task.problem(split, seed, index).question for index in range(epochs * len(count))]


def test_three_parts_that_share_no_question(sums):
    own = task(sums, verifier="numeric")
    train, held_out = set(asked(own, "train")), set(asked(own, "held_out"))
    validation = {own.validation_problem(0, index).question for index in range(len(own.sets.validation))}
    assert (len(train), len(validation), len(held_out)) == (70, 10, 20)
    assert len(train | validation | held_out) == 100
    assert own.grade(own.problem("train", 0, 0), own.problem("train", 0, 0).answer).correct
    # Other seeds, another order; the same parts.
    assert set(asked(own, "held_out", seed=1)) == held_out
    assert asked(own, "held_out", seed=1) != asked(own, "held_out")
    both = asked(own, "train", epochs=2)
    assert sorted(both[:70]) == sorted(both[70:])
    assert both[:70] != both[70:]


def test_too_few_for_validation_choose_by_what_is_trained_on(tmp_path):
    own = task(rows_in(tmp_path / "few.jsonl", [{"question": f"{n}?", "answer": n} for n in range(30)]))
    assert own.sets.validation == ()
    assert own.validation_problem(0, 0).question in asked(own, "train")


def test_questions_to_measure_by_of_another_file(sums, tmp_path):
    other = rows_in(tmp_path / "other.jsonl", [{"question": f"{n} + 1?", "answer": n + 1} for n in range(95, 105)])
    own = task(sums, held_out=[str(other)], verifier="numeric")
    assert len(own.sets.held_out) == 10
    assert not set(asked(own, "train")) & set(asked(own, "held_out"))
    assert "5 training rows ask held-out questions, and are left out" in own.sets.warnings


def test_rows_that_are_left_out(sums):
    own = task(sums, leave_out=[f"{sums}:1", f"{sums}:2"])
    everything = [*own.sets.train, *own.sets.validation, *own.sets.held_out]
    assert len(everything) == 98
    assert not {f"{sums}:1", f"{sums}:2"} & {example.where for example in everything}


def test_a_row_that_the_verifier_cannot_judge_is_named(tmp_path):
    rows = [{"question": f"{n}?", "answer": n if n != 3 else "many"} for n in range(30)]
    with pytest.raises(DataError, match=r"bad.jsonl:4: the numeric verifier needs a number as answer, got 'many'"):
        task(rows_in(tmp_path / "bad.jsonl", rows), verifier="numeric")


def test_the_language_of_a_row_goes_before_that_of_the_task(tmp_path):
    rows = [{"question": f"{n}?", "answer": n, "language": "sw" if n % 2 else None} for n in range(40)]
    own = task(rows_in(tmp_path / "mixed.jsonl", rows), language="pt")
    found = {own.problem("train", 0, index).language for index in range(len(own.sets.train))}
    assert found == {"sw", "pt"}


def test_worked_answers_are_asked_as_problems_are(tmp_path):
    rows = [{"question": f"{n} + 1?", "answer": n + 1, "solution": f"{n}+1={n + 1}."} for n in range(30)]
    rows += [{"question": f"{n} + 1?", "answer": n + 1} for n in range(30, 60)]
    own = task(rows_in(tmp_path / "worked.jsonl", rows))
    asking = AskingConfig(system="Think.", suffix=" Go on.", reading="boxed")
    worked = own.worked(asking, bare_answers=False)
    roles = [message.role for message in worked[0].messages]
    assert roles == ["system", "user", "assistant"]
    assert worked[0].messages[1].content.endswith("? Go on.")
    assert 0 < len(worked) < len(own.worked(asking, bare_answers=True)) == len(own.sets.train)
    bare = [d.messages[-1].content for d in own.worked(asking, True) if d not in worked]
    assert all(asking.answer(text) is not None for text in bare)


def test_worked_answers_as_gold(tmp_path):
    rows = [{"prompt": f"{n}", "completion": f"it is {n}"} for n in range(30)]
    own = task(rows_in(tmp_path / "chats.jsonl", rows), gold="reply")
    problem = own.problem("held_out", 0, 0)
    assert problem.answer == f"it is {problem.question}"
