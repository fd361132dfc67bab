import random

import pytest

from octavo.tasks.solutions.wordings import reworded
from octavo.tasks.types import Problem


def wordings(**metadata):
    problem = Problem(id="", task="", question="the library's", answer="", metadata=metadata)
    return {reworded(problem, random.Random(seed)) for seed in range(300)}


@pytest.mark.parametrize(
    ("metadata", "some"),
    [
        (
            {"source_dataset": "chain_sum", "expression": "47 + 38 - 5"},
            {"What is 47 + 38 - 5?", "47+38-5", "47+38-5 =", "Calculate 47 + 38 - 5."},
        ),
        (
            {"source_dataset": "products", "expression": "12 * 7"},
            {"12 * 7", "12x7", "What is 12 × 7?", "How much is 12 times 7?"},
        ),
        (
            {"source_dataset": "simple_equations", "equation": "3*z + 2 = 14", "variable": "z"},
            {"Solve 3*z+2=14 for z.", "If 3*z + 2 = 14, what is z?"},
        ),
        (
            {"source_dataset": "leg_counting", "animals": {"dog": 3, "cat": 1, "human": 2}},
            {"How many legs do 3 dogs, 1 cats and 2 humans have?", "Count the legs: 3 dogs, 1 cats, 2 humans"},
        ),
    ],
)
def test_each_kind_is_asked_in_many_ways(metadata, some):
    assert some <= wordings(**metadata)


def test_other_kinds_keep_their_words():
    assert wordings(source_dataset="spell_backward", word="octavo") == {None}
