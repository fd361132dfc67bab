"""Numbers with their uncertainty: proportions, pass@k, majority votes, paired comparisons.

A problem's samples are not independent: what a model cannot solve it fails eight times. So the problem is the unit
everywhere here, and intervals are clustered by problem (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Two-sided 95% quantile of the normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Mean of (b - a) over problems with its 95% interval, and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p_value: float


def wilson(proportion: float, n: float) -> Estimate:
    """95% score interval of a proportion of `n` (maybe fractional) trials, Wilson 1927; has a width at 0 and 1 too."""
    if n <= 0:
        raise ValueError(f"wilson needs n > 0, got {n}")
    z2 = _Z95**2
    center = (proportion + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(proportion * (1 - proportion) / n + z2 / (4 * n * n))
    # Rounding must not push the value out of its own interval at 0 and 1.
    return Estimate(proportion, max(0.0, min(center - half, proportion)), min(1.0, max(center + half, proportion)))


def pass_at_1(correct: Sequence[Sequence[bool]]) -> Estimate:
    """Mean over problems of the share of right samples, with a 95% interval clustered by problem.

    `correct[p]` holds at least one sample of problem p. The clustered standard error s of the mean gives an effective
    number of trials p(1-p)/s^2, kept between the number of problems and the number of samples, which goes into Wilson's
    interval: near 0 and 1 the plain normal interval would shrink to nothing.
    """
    if not correct or not all(correct):
        raise ValueError("pass_at_1 needs at least one problem, and at least one sample of each")
    shares = np.array([sum(samples) / len(samples) for samples in correct])
    problems, samples = len(shares), sum(map(len, correct))
    mean = float(shares.mean())
    variance_of_mean = float(shares.var(ddof=1)) / problems if problems > 1 else 0.0
    trials = mean * (1 - mean) / variance_of_mean if variance_of_mean > 0 else problems
    return wilson(mean, min(max(trials, problems), samples))


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate that at least one of k samples is right, from `samples` of which `correct` are.

    1 - C(n-c, k) / C(n, k): Chen et al. 2021 (arXiv:2107.03374), equation 1.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(
            f"pass_at_k needs 0 <= correct <= samples and 1 <= k <= samples, got {correct}, {samples}, {k}"
        )
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority(votes: Sequence[str | None]) -> int | None:
    """Index of the first sample that gave the commonest answer; None votes for nothing. Ties go to whoever came first.

    Votes must be normalized: equal answers are equal strings. Returns None if there is no vote.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return None
    # Counter keeps the order of first occurrence, and max returns the first of equals.
    return votes.index(max(counts, key=counts.__getitem__))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that two models solve equally many, from problems that only one of them solved."""
    discordant = only_a + only_b
    tail = sum(math.comb(discordant, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**discordant)


def compare(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Comparison:
    """Paired comparison of two models on the same problems, from each problem's share of right samples.

    The interval is the percentile bootstrap over problems; the p-value comes from flipping the signs of the differences
    at random (add-one, so never 0), which assumes nothing of their distribution.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"compare needs the same problems, at least one, got {len(a)} and {len(b)}")
    differences = np.subtract(b, a)
    rng = np.random.default_rng(seed)
    observed = float(differences.mean())
    boots, extreme = np.empty(resamples), 0
    for i in range(resamples):  # One row at a time: [resamples, problems] would take 40 MB for 500 problems.
        boots[i] = differences[rng.integers(len(differences), size=len(differences))].mean()
        flipped = (differences * rng.choice((-1.0, 1.0), size=len(differences))).mean()
        extreme += abs(flipped) >= abs(observed) - 1e-12
    low, high = np.quantile(boots, (0.025, 0.975))
    return Comparison(observed, float(low), float(high), (1 + extreme) / (1 + resamples))
