"""Word problems, solved in the library's own steps."""

import random

import pytest

from octavo.errors import ConfigError
from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.solutions import write


def test_solutions_come_to_the_right_answer_and_show_the_work():
    task = ReasoningGymTask(ReasoningGymConfig(name="gsm_symbolic"))
    for index in range(60):
        problem = task.problem("train", 0, index)
        solution = write(problem, "steps", "en", random.Random(0))
        assert task.grade(problem, solution.answer).correct
        assert "####" not in solution.reasoning
        assert len(solution.reasoning) > 40


def test_there_is_no_second_route():
    problem = ReasoningGymTask(ReasoningGymConfig(name="gsm_symbolic")).problem("train", 0, 0)
    with pytest.raises(ConfigError, match="cannot be checked by another route"):
        write(problem, "check", "en", random.Random(0))
