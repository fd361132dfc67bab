"""What a model wrote, as it is shown."""

import json

import pytest

from made_run import make_run, rollout, write_lines
from octavo.errors import OctavoError
from octavo.serve.runs.completions import MOST_CHARACTERS, read_evaluation, read_page


def test_rollouts_newest_first_with_their_grades(tmp_path):
    page = read_page(make_run(tmp_path).stage("rl"), None)
    assert [one.step for one in page.completions] == [6, 5, 4, 3, 2, 1]
    first = page.completions[0]
    assert (first.question, first.gold, first.text) == ("What is 1 + 2?", "3", "<think>1+2=3</think><answer>3</answer>")
    assert (first.reward, first.rewards, first.advantage) == (1.1, {"accuracy": 1.0, "format": 0.1}, 0.7)
    assert (first.group_rewards, first.tokens, first.finish_reason, first.status) == ((1.1, 0.1), 17, "stop", "ok")
    assert page.older is None


def test_older_ones_are_reached(tmp_path):
    run = make_run(tmp_path)
    write_lines(run.stage("rl").rollouts, [rollout(step) for step in range(1, 31)])
    first = read_page(run.stage("rl"), None)
    second = read_page(run.stage("rl"), first.older)
    third = read_page(run.stage("rl"), second.older)
    assert [one.step for one in first.completions] == list(range(30, 18, -1))
    assert [one.step for one in second.completions] == list(range(18, 6, -1))
    assert [one.step for one in third.completions] == list(range(6, 0, -1))
    assert third.older is None


def test_samples_are_conversations(tmp_path):
    stage = make_run(tmp_path).stage("samples")
    stage.path.mkdir()
    messages = [{"role": "user", "content": "6 x 7?"}, {"role": "assistant", "content": "42"}]
    write_lines(stage.samples, [{"step": 0, "task": "sums", "messages": messages}])
    (one,) = read_page(stage, None).completions
    assert (one.question, one.text, one.task, one.reward) == ("6 x 7?", "42", "sums", None)


def test_rows_of_another_shape_are_shown_as_far_as_they_go(tmp_path):
    stage = make_run(tmp_path).stage("rl")
    rows = [{}, {"question": 3, "completion": None, "rewards": [], "group_rewards": {}}, {"messages": "x"}]
    rows += [{"messages": [3, {"role": "user", "content": 4}]}, {"group_rewards": ["a", None, 2]}]
    write_lines(stage.rollouts, rows)
    page = read_page(stage, None)
    assert [one.text for one in page.completions] == [""] * 5
    assert page.completions[0].group_rewards == (2.0,)


def test_an_endless_text_is_cut(tmp_path):
    stage = make_run(tmp_path).stage("rl")
    write_lines(stage.rollouts, [rollout(1, "a" * 50_000)])
    (one,) = read_page(stage, None).completions
    assert one.text == "a" * MOST_CHARACTERS + " …"


def test_an_evaluation(tmp_path):
    run = make_run(tmp_path, finished=True)
    read = read_evaluation(run.stage("eval-rl").evaluation)
    assert (read.overall.pass_at_1, list(read.tasks), read.count) == (0.75, ["sums"], 1)
    (problem,) = read.problems
    assert problem.answers == (("3", True), (None, None))
    assert read_evaluation(run.stage("rl").evaluation) is None


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"tasks": {"a": 3}, "overall": {}}', '{"tasks": {}}'])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(OctavoError, match=r"evaluation\.json"):
        read_evaluation(path)


def test_records_of_another_shape_are_passed_over(tmp_path):
    run = make_run(tmp_path, finished=True)
    path = run.stage("eval-rl").evaluation
    values = json.loads(path.read_text())
    values["records"] = [3, None, {"answers": 3}, {"question": "Q", "answers": ["1"], "correct": ["yes"]}]
    path.write_text(json.dumps(values))
    read = read_evaluation(path)
    assert [(problem.question, problem.answers) for problem in read.problems] == [("", ()), ("Q", (("1", None),))]
