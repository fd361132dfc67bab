"""Every verifier that the default recipe rewards by must pay for the answer and for nothing else."""

import pytest

from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.self_test import self_test

NAMES = (
    "chain_sum",
    "products",
    "gcd",
    "leg_counting",
    "simple_equations",
    "spell_backward",
    "count_bits",
    "base_conversion",
    "letter_jumble",
    "gsm_symbolic",
)
# Their library verifiers look for the answer in a text.
SEARCHING = ("gsm_symbolic", "knights_knaves", "fraction_simplification", "kakurasu", "survo", "sokoban")


@pytest.fixture(scope="module", params=NAMES)
def task(request):
    return ReasoningGymTask(ReasoningGymConfig(name=request.param))


@pytest.fixture(scope="module", params=("train", "held_out"))
def problems(request, task):
    return [task.problem(request.param, 1, index) for index in range(12)]


def test_gold_earns_full_score_however_it_is_wrapped(task, problems):
    for problem in problems:
        for answer in (problem.answer, f" {problem.answer}\n", rf"\boxed{{{problem.answer}}}", f"${problem.answer}$"):
            assert task.grade(problem, answer).correct, (problem.question, answer)


def test_nothing_else_does(task, problems):
    every_candidate = " ".join(str(number) for number in range(2000))
    golds = [problem.answer for problem in problems]
    for problem in problems:
        gold = problem.answer
        attempts = [
            None,
            "",
            " \n",
            "I cannot answer that.",
            "answer",
            f"garbage {gold} garbage",
            f"{gold} " * 3 + "x",
            f"The answer is {gold}.",
            f"{every_candidate} {gold}",
            f"{gold}|{gold}x",
            problem.question,
        ]
        attempts += [other for other in golds if other.casefold() != gold.casefold()]
        for attempt in attempts:
            assert not task.grade(problem, attempt).correct, (problem.question, attempt)


@pytest.mark.parametrize("name", SEARCHING)
def test_prose_around_the_answer_earns_nothing(name):
    task = ReasoningGymTask(ReasoningGymConfig(name=name))
    problems = [task.problem("train", 1, index) for index in range(4)]
    probes = {probe.name: probe for probe in self_test(task, problems).probes}
    assert (probes["gold"].failed, probes["padded"].failed) == (0, 0)
    assert probes["padded"].tried == 12
