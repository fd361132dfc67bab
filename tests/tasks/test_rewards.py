import pytest

from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.rewards import RewardConfig, score_rollouts
from octavo.tasks.task import Task
from octavo.tasks.types import Completion, GradeStatus, Problem

CONFIG = RewardConfig(accuracy=1.0, format=0.1, language=0.2)
PROBLEM = Problem(
    id="products/train/0/0",
    task="products",
    question="Solve the following multiplication: 3 * 4.",
    answer="12",
    metadata={"expression": "3 * 4"},
)


@pytest.fixture(scope="module")
def task():
    return ReasoningGymTask(ReasoningGymConfig(name="products"))


def rewards(task, text, finish="stop"):
    completion = Completion(prompt_ids=(1,), ids=(2,), logprobs=(-0.1,), text=text, finish_reason=finish)
    return dict(score_rollouts(task, [(PROBLEM, completion)], CONFIG)[0].rewards)


def parts(accuracy, format, language):
    return pytest.approx({"accuracy": accuracy, "format": format, "language": language})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3*4=12. Therefore 12.</think><answer>12</answer>", parts(1, 0.1, 0.2)),
        ("<think>3*4=12. Portanto 12.</think><answer>12</answer>", parts(1, 0.1, 0)),
        ("<think>Therefore, portanto 12.</think><answer>12</answer>", parts(1, 0.1, 0.1)),
        ("<think>Thus 13.</think><answer>13</answer>", parts(0, 0.1, 0.2)),
        ("<think></think><answer>12</answer>", parts(1, 0.1, 0)),  # Empty reasoning earns less than good reasoning.
        ("<think>Thus 12.</think>12", parts(0, 0, 0.2)),  # The answer must stand in its tags.
        ("12", parts(0, 0, 0)),
        ("", parts(0, 0, 0)),
        ("<answer>12</answer>", parts(1, 0, 0)),
        ("<think>a</think><answer>1 2 3 4 6 12</answer>", parts(0, 0.1, 0.2)),  # All candidates at once.
        ("<think>Thus</think><answer>12</answer> and more", parts(1, 0, 0.2)),
        ("<think>Thus</think><answer>11</answer><answer>12</answer><answer>13</answer>", parts(0, 0, 0.2)),
    ],
)
def test_pays_for_the_answer_the_form_and_the_language(task, text, expected):
    assert rewards(task, text) == expected


def test_an_unfinished_reply_earns_neither_format_nor_language(task):
    good = "<think>Therefore 12.</think><answer>12</answer>"
    assert rewards(task, good, finish="length") == parts(1, 0, 0)


class Broken(Task):
    def problem(self, split, seed, index):
        raise NotImplementedError

    def score(self, problem, answer):
        raise RuntimeError("verifier is broken")


def test_a_failed_verifier_marks_the_rollout():
    completion = Completion((1,), (2,), (-0.1,), "<think>Thus</think><answer>12</answer>", "stop")
    (rollout,) = score_rollouts(Broken("products", 1.0), [(PROBLEM, completion)], CONFIG)
    assert rollout.grade.status is GradeStatus.ERROR
    assert not rollout.grade.scored


def test_reward_is_the_sum_of_its_parts(task):
    completion = Completion((1,), (2,), (-0.1,), "<think>Thus 12.</think><answer>12</answer>", "stop")
    assert score_rollouts(task, [(PROBLEM, completion)], CONFIG)[0].reward == pytest.approx(1.3)
