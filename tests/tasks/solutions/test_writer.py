import random
import re

import pytest

from octavo.errors import ConfigError
from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.language import language_share
from octavo.tasks.solutions import STYLES, solvable, write
from octavo.tasks.types import Problem

# Sizes as the default recipe would take them, and the library's own.
PARAMS = {
    "chain_sum": {"max_terms": 3, "max_digits": 2},
    "products": {"max_digits": 2},
    "gcd": {"max_value": 99},
    "leg_counting": {"min_animals": 1, "max_animals": 3},
    "simple_equations": {"max_value": 20},
    "spell_backward": {"max_word_len": 6},
    "count_bits": {"max_n": 255},
    "base_conversion": {"max_value": 200},
}
NEGATIVE = {
    "chain_sum": {"allow_negation": True},
    "products": {"allow_negation": True, "max_terms": 3},
    "gcd": {"max_numbers": 4},
}
SETTINGS = [(name, params) for name in PARAMS for params in (PARAMS[name], NEGATIVE.get(name, {}))]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda setting: f"{setting[0]}-{len(setting[1])}")
def task(request):
    name, params = request.param
    return ReasoningGymTask(ReasoningGymConfig(name=name, params=params))


@pytest.fixture(scope="module")
def problems(task):
    return [task.problem(split, 2, index) for split in ("train", "held_out") for index in range(50)]


def blind(problem):
    """The problem without its gold answer: nothing may be read off it."""
    hidden = {"binary", "solution", "result", "total_legs", "target_repr", "decimal_value"}
    metadata = {key: value for key, value in problem.metadata.items() if key not in hidden}
    return Problem(id="", task=problem.task, question=problem.question, answer="?", metadata=metadata)


@pytest.mark.parametrize("style", ["direct", "steps", "check", "mend"])
def test_right_styles_end_in_a_full_score(task, problems, style):
    for seed, problem in enumerate(problems):
        solution = write(blind(problem), style, "mixed", random.Random(seed))
        assert task.grade(problem, solution.answer).correct, (problem.question, solution)


def test_a_slip_ends_in_a_wrong_answer(task, problems):
    for seed, problem in enumerate(problems):
        solution = write(problem, "slip", "en", random.Random(seed))
        assert not task.grade(problem, solution.answer).correct, (problem.question, solution)
        assert solution.answer in solution.reasoning


def test_a_guess_is_right_about_half_of_the_time(task, problems):
    right = [
        task.grade(p, write(p, "skip", "en", random.Random(seed)).answer).correct for seed, p in enumerate(problems)
    ]
    assert 30 <= sum(right) <= 70


def test_every_equality_in_right_work_holds(task, problems):
    """An independent reading of the text: a*b+c chains between equals signs evaluate alike."""
    for seed, problem in enumerate(problems):
        for style in ("steps", "check"):
            text = write(problem, style, "en", random.Random(seed)).reasoning
            for statement in re.findall(r"(?<![\w*/+-])[-\d+*/]+(?:=[-\d+*/]+)+", text):
                sides = [eval(re.sub(r"\b0+(?=\d)", "", side)) for side in statement.split("=")]
                assert len(set(sides)) == 1, (statement, text)


def test_mending_shows_a_wrong_line_then_the_right_one(problems):
    for seed, problem in enumerate(problems):
        mended = write(problem, "mend", "en", random.Random(seed))
        before, wait, after = mended.reasoning.partition(" Wait, ")
        assert wait
        wrong = before.removesuffix(".").split(". ")[-1]
        _, right, *_ = after.split(". ")  # The words of noticing, then the line anew.
        assert wrong != right
        assert mended.answer == write(problem, "steps", "en", random.Random(seed)).answer
        assert mended.answer in after


def test_words_are_of_the_language_asked_for(problems):
    for seed, problem in enumerate(problems):
        for style in STYLES:
            for language, other in (("en", "pt"), ("pt", "en")):
                text = write(problem, style, language, random.Random(seed)).reasoning
                # Letters spelled out or in other bases are not words of the writer's.
                said = " ".join(re.findall(r"(?:^|(?<=[.:] ))[A-ZÀ-Þ][^\d:.]*", text))
                if task_words(problem) or not said:
                    continue
                assert language_share(said, language) == 1.0, said
                assert language_share(said, other) < 1.0, said


def task_words(problem):
    """Tasks whose answers are themselves words."""
    return problem.metadata["source_dataset"] in ("spell_backward", "base_conversion")


def test_the_same_rng_writes_the_same_text_and_others_word_it_otherwise(problems):
    texts = {write(problems[0], "steps", "en", random.Random(seed)).reasoning for seed in range(20)}
    assert 2 <= len(texts) <= 3
    again = [write(problems[0], "mend", "mixed", random.Random(9)) for _ in range(2)]
    assert again[0] == again[1]


def test_tasks_without_solutions_are_refused():
    problem = Problem(id="", task="mine", question="q", answer="a")
    assert not solvable(problem)
    with pytest.raises(ConfigError, match="no worked solutions for task mine; they exist for: base_conversion"):
        write(problem, "steps", "en", random.Random(0))
