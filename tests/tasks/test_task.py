import time
from collections import Counter

import pytest

from octavo.errors import ConfigError
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.types import GradeStatus, Problem


class Fake(Task):
    """Problem i asks "i"; the verifier does what the answer says."""

    def problem(self, split, seed, index):
        return Problem(id=f"{self.name}/{index}", task=self.name, question=str(index), answer="1")

    def score(self, problem, answer):
        if answer == "raise":
            raise ValueError("cannot read it")
        if answer == "hang":
            time.sleep(10)
        return float(answer)


PROBLEM = Problem(id="a/0", task="a", question="0", answer="1")


@pytest.mark.parametrize(
    ("answer", "status", "score", "correct"),
    [
        ("1", GradeStatus.OK, 1.0, True),
        (r" \boxed{1} ", GradeStatus.OK, 1.0, True),
        ("0.99", GradeStatus.OK, 0.99, False),
        ("7", GradeStatus.OK, 1.0, True),
        ("-7", GradeStatus.OK, 0.0, False),
        (None, GradeStatus.NO_ANSWER, 0.0, False),
        ("  ", GradeStatus.NO_ANSWER, 0.0, False),
        ("raise", GradeStatus.ERROR, 0.0, False),
        ("nan", GradeStatus.ERROR, 0.0, False),
        ("hang", GradeStatus.TIMEOUT, 0.0, False),
    ],
)
def test_grading_never_raises_and_tells_failure_from_zero(answer, status, score, correct):
    grade = Fake("a", grading_seconds=0.05).grade(PROBLEM, answer)
    assert (grade.status, grade.score, grade.correct) == (status, score, correct)
    assert grade.scored is (status in (GradeStatus.OK, GradeStatus.NO_ANSWER))
    assert bool(grade.detail) is not grade.scored


def test_failures_say_which_task_and_why():
    assert Fake("a", 1.0).grade(PROBLEM, "raise").detail == "a: ValueError: cannot read it"


def mixture(**weights):
    return TaskMixture([Fake(name, 1.0) for name in weights], list(weights.values()))


def test_mixture_deals_by_weight_in_every_run_of_indices():
    mixed = mixture(a=3, b=1)
    for start in (0, 57, 999):
        names = Counter(mixed.problem("train", 0, index).task for index in range(start, start + 100))
        assert names["a"] == pytest.approx(75, abs=2)


def test_mixture_skips_and_repeats_no_problem_of_a_task():
    mixed = mixture(a=5, b=2, c=0.3)
    seen = {"a": [], "b": [], "c": []}
    for index in range(2500):  # Over two and a half periods.
        problem = mixed.problem("train", 0, index)
        seen[problem.task].append(int(problem.question))
    assert all(indices == list(range(len(indices))) for indices in seen.values())


def test_mixture_grades_with_the_task_that_asked():
    mixed = mixture(a=1, b=1)
    problem = mixed.problem("train", 0, 1)
    assert mixed.task_of(problem).name == problem.task == "b"
    assert mixed.grade(problem, "1").correct


def test_a_mixture_tells_the_first_failure_of_each_task():
    told = []
    mixed = TaskMixture([Fake("a", 1.0), Fake("b", 1.0)], tell=told.append)
    first, second = (mixed.problem("train", 0, index) for index in range(2))
    mixed.grade_all([(first, "1"), (second, None)])
    assert told == []
    mixed.grade_all([(first, "1"), (first, "raise"), (second, "raise")])
    mixed.grade(first, "raise")
    assert [text.partition("(")[2].partition(")")[0] for text in told] == [
        "a: ValueError: cannot read it",
        "b: ValueError: cannot read it",
    ]
    assert "mend the verifier of a" in told[0]


def test_impossible_mixtures_say_what_to_change():
    with pytest.raises(ConfigError, match="two tasks are named 'a'; give one of them another `label`"):
        TaskMixture([Fake("a", 1.0), Fake("a", 1.0)])
    with pytest.raises(ConfigError, match="expected positive numbers"):
        mixture(a=1, b=0)
    with pytest.raises(ConfigError, match="the weight of 'b' is under 1/1000"):
        mixture(a=10000, b=1)
    with pytest.raises(ConfigError, match="at least one"):
        TaskMixture([])
