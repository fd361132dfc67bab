import pytest

from octavo.errors import ConfigError
from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask


def gym(name, **params):
    return ReasoningGymTask(ReasoningGymConfig(name=name, params=params))


def test_a_problem_is_a_function_of_its_address():
    first, second = gym("products", max_digits=3), gym("products", max_digits=3)
    assert first.problem("train", 5, 17) == second.problem("train", 5, 17)
    assert first.problem("train", 5, 17).id == "products/train/5/17"
    assert first.problem("train", 5, 10**12).question.startswith("Solve the following multiplication: ")


def test_seeds_do_not_overlap():
    """The library seeds entry i with seed + i: seed 1 would repeat all but one problem of seed 0."""
    task = gym("chain_sum", min_terms=4, min_digits=4)
    streams = [{task.problem("train", seed, index).question for index in range(200)} for seed in (0, 1)]
    assert [len(stream) for stream in streams] == [200, 200]
    assert not streams[0] & streams[1]


def test_gold_answer_is_right():
    task = gym("products", max_digits=3)
    for index in range(20):
        problem = task.problem("held_out", 0, index)
        left, right = problem.metadata["expression"].split(" * ")
        assert int(problem.answer) == int(left) * int(right)


def test_datasets_that_prepare_their_entries_work_too():
    task = gym("list_functions")  # IndexError beyond its size
    assert task.problem("train", 0, 10**6).answer
    assert gym("knights_knaves").problem("held_out", 0, 0).answer


def test_datasets_without_a_single_gold_answer_are_graded_by_their_metadata():
    task = gym("graph_color")
    problem = task.problem("train", 0, 0)
    assert problem.answer == ""
    assert task.grade(problem, "no idea").correct is False


def test_entries_whose_answer_is_nothing_are_not_drawn():
    task = gym("base_conversion", min_value=0, max_value=1)  # The library writes zero as nothing in most bases.
    assert {task.problem("train", 0, index).answer for index in range(30)} <= {"0", "1"}


def test_equations_that_lost_their_unknown_are_not_drawn():
    task = gym("simple_equations", max_value=2, max_terms=4)  # One in twenty here is "0 = 0" in the library.
    for index in range(150):
        metadata = task.problem("train", 0, index).metadata
        assert metadata["variable"] in metadata["equation"]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("chain_sun", {}, "reasoning_gym has no dataset 'chain_sun' (did you mean chain_sum?)"),
        ("products", {"max_digit": 2}, "task products: unknown parameter max_digit (did you mean max_digits?)"),
        (
            "products",
            {"seed": 2},
            "task products: params.seed is set by octavo (problems are drawn by split, seed and index)",
        ),
        (
            "products",
            {"min_digits": 3, "max_digits": 2},
            "task products: params {'min_digits': 3, 'max_digits': 2}: max_digits must be >= min_digits",
        ),
    ],
)
def test_bad_configs_say_what_to_change_in_one_line(name, params, message):
    with pytest.raises(ConfigError) as caught:
        gym(name, **params)
    assert str(caught.value) == message


def test_wrong_types_are_config_errors():
    with pytest.raises(ConfigError, match=r"^task products: params \{'max_digits': 'two'\}: .*"):
        gym("products", max_digits="two")


def test_a_space_too_small_for_both_splits_says_so():
    task = gym("count_bits", min_n=1, max_n=1)
    with pytest.raises(ConfigError, match="leave too few different problems, widen them"):
        [task.problem(split, 0, 0) for split in ("held_out", "train")]


def test_a_refusal_is_no_answer_where_the_library_takes_it_for_false():
    task = gym("game_of_life_halting")
    problems = [task.problem("train", 0, index) for index in range(10)]
    assert {problem.answer for problem in problems} == {"True", "False"}
    for problem in problems:
        assert task.grade(problem, problem.answer).correct
        assert not task.grade(problem, "I cannot answer that.").correct


def test_a_share_of_training_problems_is_reworded_and_no_held_out_one():
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}
    plain = gym("chain_sum", **params)
    mixed = ReasoningGymTask(ReasoningGymConfig(name="chain_sum", params=params, reworded_share=0.25))
    assert all(mixed.problem("held_out", 0, index) == plain.problem("held_out", 0, index) for index in range(50))
    changed = 0
    for index in range(400):
        problem, library = (task.problem("train", 0, index) for task in (mixed, plain))
        assert problem.answer == library.answer
        expression = library.metadata["expression"]
        assert expression.replace(" ", "") in problem.question.replace(" ", "")
        changed += problem.question != library.question
    assert 70 <= changed <= 130
