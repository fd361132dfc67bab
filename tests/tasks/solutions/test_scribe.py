import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tasks.solutions.scribe import Scribe, slip


@given(st.integers(-(10**6), 10**6), st.integers(0, 1000))
def test_a_slipped_number_is_another_one_of_the_same_sign_and_near(value, seed):
    wrong = slip(value, random.Random(seed))
    assert wrong != value
    assert wrong == 0 or value == 0 or (wrong > 0) == (value > 0)
    assert abs(abs(wrong) - abs(value)) <= max(2, 10 ** len(str(abs(value))))
    assert len(str(abs(wrong))) <= len(str(abs(value))) + 1


@given(st.text(alphabet="abcAB12", min_size=1, max_size=12), st.integers(0, 1000))
def test_a_slipped_word_is_another_one(value, seed):
    wrong = slip(value, random.Random(seed))
    assert wrong.casefold() != value.casefold()
    assert set(wrong) == set(value)


def test_only_the_chosen_result_slips():
    scribe = Scribe(random.Random(0), slip_at=1)
    assert scribe.result(5) == 5
    scribe.write("first")
    assert scribe.result(7) != 7
    scribe.write("second")
    assert scribe.result("word") == "word"
    assert (scribe.results, scribe.slipped_line, scribe.lines) == (3, 1, ["first", "second"])


@pytest.mark.parametrize("value", [0, 1, 9])
def test_small_numbers_slip_by_one_or_two(value):
    assert {abs(slip(value, random.Random(seed)) - value) for seed in range(30)} <= {1, 2}
