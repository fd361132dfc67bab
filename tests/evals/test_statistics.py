import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.evals import statistics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    estimate = statistics.wilson(successes / n, n)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_value_and_mirrors(case):
    successes, n = case
    estimate = statistics.wilson(successes / n, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low < estimate.high
    mirrored = statistics.wilson(1 - successes / n, n)
    assert mirrored.low == pytest.approx(1 - estimate.high)


def test_pass_at_1_is_the_mean_over_problems():
    estimate = statistics.pass_at_1([[True, True, True, False], [False], [True, False]])
    assert estimate.value == pytest.approx((0.75 + 0 + 0.5) / 3)


def test_identical_samples_count_once():
    """Eight copies of each answer say no more than one: the interval is that of the problems."""
    once = [[bool(i % 3)] for i in range(90)]
    eightfold = [samples * 8 for samples in once]
    single, copied = statistics.pass_at_1(once), statistics.pass_at_1(eightfold)
    assert copied.value == pytest.approx(single.value)
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.02)


def test_independent_samples_narrow_the_interval():
    rng = random.Random(0)
    coins = [[rng.random() < 0.5 for _ in range(8)] for _ in range(200)]
    first = statistics.pass_at_1([samples[:1] for samples in coins])
    eight = statistics.pass_at_1(coins)
    assert (eight.high - eight.low) / (first.high - first.low) == pytest.approx(1 / math.sqrt(8), rel=0.15)


@pytest.mark.parametrize("correct", [True, False])
def test_pass_at_1_keeps_an_interval_where_all_are_alike(correct):
    estimate = statistics.pass_at_1([[correct] * 8] * 50)
    assert estimate.high - estimate.low == pytest.approx(0.0713, abs=1e-3)  # Wilson's for 0 of 50


def test_pass_at_1_covers_the_truth_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        abilities = rng.beta(0.5, 0.5, size=60)  # Problems are mostly solved or not: strongly clustered; mean 0.5.
        correct = rng.random((60, 8)) < abilities[:, None]
        estimate = statistics.pass_at_1(correct.tolist())
        covered += estimate.low <= 0.5 <= estimate.high
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


def test_pass_at_1_refuses_nothing():
    with pytest.raises(ValueError, match="at least one problem"):
        statistics.pass_at_1([])
    with pytest.raises(ValueError, match="at least one sample"):
        statistics.pass_at_1([[True], []])


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_average_over_all_choices_of_k(case):
    from itertools import combinations

    samples, correct, k = case
    outcomes = [True] * correct + [False] * (samples - correct)
    chosen = [any(choice) for choice in combinations(outcomes, k)]
    assert statistics.pass_at_k(samples, correct, k) == pytest.approx(sum(chosen) / len(chosen))


def test_pass_at_k_refuses_more_than_was_drawn():
    with pytest.raises(ValueError, match="k <= samples"):
        statistics.pass_at_k(8, 2, 9)


@pytest.mark.parametrize(
    ("votes", "winner"),
    [
        (["4", "5", "5"], 1),
        (["5", "4", "4", "5"], 0),
        ([None, None, "7"], 2),
        ([None, "1", None, "2", "2"], 3),
        ([None], None),
        ([], None),
    ],
)
def test_majority_is_the_first_of_the_commonest(votes, winner):
    assert statistics.majority(votes) == winner


def test_mcnemar_is_the_exact_sign_test():
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert statistics.mcnemar(1, 9) == statistics.mcnemar(9, 1) == pytest.approx(2 * 11 / 1024)
    assert statistics.mcnemar(5, 5) == 1.0


def test_compare_finds_a_difference_and_its_size():
    a = [0.0, 0.25, 0.5, 0.75] * 25
    b = [share + 0.25 for share in a]
    same = statistics.compare(a, a, resamples=500)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    better = statistics.compare(a, b, resamples=500)
    assert (better.difference, better.low, better.high) == pytest.approx((0.25, 0.25, 0.25))
    assert better.p_value == pytest.approx(1 / 501)
    worse = statistics.compare(b, a, resamples=500)
    assert worse.difference == pytest.approx(-0.25)


def test_compare_is_paired_and_repeatable():
    rng = np.random.default_rng(1)
    difficulty = rng.random(200)
    a = difficulty
    b = np.clip(difficulty + rng.normal(0.02, 0.05, size=200), 0, 1)  # Small against the spread of the problems.
    first = statistics.compare(a.tolist(), b.tolist(), seed=3, resamples=1000)
    assert first == statistics.compare(a.tolist(), b.tolist(), seed=3, resamples=1000)
    assert first.low > 0
    assert first.p_value < 0.01
    with pytest.raises(ValueError, match="same problems"):
        statistics.compare([1.0], [1.0, 0.0])


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(2)
    small = sum(
        statistics.compare(rng.random(30).tolist(), rng.random(30).tolist(), seed=i, resamples=99).p_value <= 0.2
        for i in range(150)
    )
    assert small / 150 == pytest.approx(0.2, abs=0.1)
