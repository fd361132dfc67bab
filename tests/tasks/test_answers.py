from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tasks import answers


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  42\n", "42"),
        (r"\boxed{42}", "42"),
        (r"$\boxed{ \frac{1}{2} }$", r"\frac{1}{2}"),
        (r"\(x\)", "x"),
        ("$5 and $6", "$5 and $6"),
        ("$", "$"),
        ("", ""),
        (r"it is \boxed{42}", r"it is \boxed{42}"),
    ],
)
def test_clean_strips_only_what_wraps_the_whole_answer(text, cleaned):
    assert answers.clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("+042.0", 42),
        ("−5", -5),
        ("1,234,567.5", Fraction("1234567.5")),
        ("3/4", Fraction(3, 4)),
        (r"$-\frac{3}{4}$", Fraction(-3, 4)),
        ("1.5e3", 1500),
        (".5", Fraction(1, 2)),
        ("٣", 3),
    ],
)
def test_reads_numbers_exactly(text, value):
    assert answers.parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1 2", "12,34", "1/0", "1e9999", "nan", "inf", "1,2", "9" * 401, "4 apples", "1/2/3"]
)
def test_what_is_not_one_number_is_none(text):
    assert answers.parse_number(text) is None


def test_normalize_makes_equal_answers_equal_strings():
    assert answers.normalize("42.0") == answers.normalize(r"\boxed{+42}") == "42"
    assert answers.normalize("  The  Cat\n") == "the cat"
    assert answers.normalize("0.5") == answers.normalize("1/2")
    assert answers.normalize("cat") != answers.normalize("cats")


@given(st.text(max_size=30))
def test_normalize_is_total_and_idempotent(text):
    once = answers.normalize(text)
    assert answers.normalize(once) == once


def test_numeric_match_has_a_relative_tolerance_above_one():
    assert answers.numeric_match("101", "100", tolerance=0.01)
    assert not answers.numeric_match("101.1", "100", tolerance=0.01)
    assert answers.numeric_match("0.009", "0", tolerance=0.01)
    assert not answers.numeric_match("about 100", "100", tolerance=1.0)
    assert not answers.numeric_match("0.1000001", "0.1")


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (r"\frac{2}{4}", "0.5", True),
        ("x + 1", "1+x", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("x", "2x", False),
        ("7", "8", False),
        ("I cannot answer that", "8", False),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_math_match_is_equality_of_values(answer, gold, equal):
    assert answers.math_match(answer, gold) is equal
