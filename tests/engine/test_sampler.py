import numpy as np
import pytest
import torch

from octavo.engine import sampler
from octavo.engine.sampler import CANDIDATES, Draws, sample, stream_key, uniforms
from octavo.errors import CheckpointError

# 99.9% quantiles of chi-square, by degrees of freedom. Seeds are fixed, so a test passes always or never.
CHI_SQUARE = {3: 16.3, 4: 18.5, 9: 27.9, 19: 43.8, 81: 124.8, 99: 149.0}


def draws(rows, temperature=1.0, top_p=1.0, top_k=0, seed=0):
    """`rows` samples of one request, each at its first token."""
    return Draws(
        np.full(rows, temperature, np.float32),
        np.full(rows, top_p, np.float64),
        np.full(rows, top_k, np.int64),
        np.array([stream_key(seed, index) for index in range(rows)]),
        np.zeros(rows, np.int64),
    )


def chi_square(counts, expected):
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    return ((counts - expected) ** 2 / expected).sum()


def frequencies(probabilities, rows=20_000, **params):
    """How often each token is drawn from a distribution."""
    logits_BV = torch.tensor(probabilities).log().expand(rows, -1)
    ids_B, _ = sample(logits_BV, draws(rows, **params))
    return np.bincount(ids_B.numpy(), minlength=len(probabilities))


class TestRandomness:
    def test_is_splitmix64(self):
        """First outputs of the reference implementation from state 0."""
        expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
        found = uniforms(np.zeros(3, np.uint64), np.arange(3))
        assert found.tolist() == [(value >> 11) * 2.0**-53 for value in expected]

    def test_in_range_and_uniform(self):
        values = uniforms(np.full(50_000, stream_key(7, 0)), np.arange(50_000))
        assert values.min() >= 0
        assert values.max() < 1
        counts = np.bincount((values * 20).astype(int), minlength=20)
        assert chi_square(counts, np.full(20, 2500)) < CHI_SQUARE[19]

    @pytest.mark.parametrize("neighbour", ["position", "sample", "seed"])
    def test_neighbouring_draws_are_independent(self, neighbour):
        """Pairs (u, u of the next position, sample or seed) fall evenly into 10 x 10 cells."""
        count = 10_001
        if neighbour == "position":
            values = uniforms(np.full(count, stream_key(1, 2)), np.arange(count))
        elif neighbour == "sample":
            values = uniforms(np.array([stream_key(3, index) for index in range(count)]), np.full(count, 5))
        else:
            values = uniforms(np.array([stream_key(index, 0) for index in range(count)]), np.full(count, 5))
        cells = (values[:-1] * 10).astype(int) * 10 + (values[1:] * 10).astype(int)
        assert chi_square(np.bincount(cells, minlength=100), np.full(100, 100)) < CHI_SQUARE[99]

    def test_streams_of_other_seeds_and_samples_do_not_meet(self):
        keys = {int(stream_key(seed, index)) for seed in range(-50, 50) for index in range(50)}
        assert len(keys) == 5000

    def test_seed_and_sample_do_not_trade_places(self):
        assert stream_key(1, 2) != stream_key(2, 1)

    def test_any_integer_is_a_seed(self):
        assert stream_key(-1, 0) == stream_key(2**64 - 1, 0)


class TestDistribution:
    probabilities = (0.4, 0.05, 0.25, 0.2, 0.1)

    def test_whole(self):
        assert chi_square(frequencies(self.probabilities), np.array(self.probabilities) * 20_000) < CHI_SQUARE[4]

    def test_temperature(self):
        expected = np.array(self.probabilities) ** (1 / 0.5)
        counts = frequencies(self.probabilities, temperature=0.5)
        assert chi_square(counts, expected / expected.sum() * 20_000) < CHI_SQUARE[4]

    def test_greedy(self):
        assert frequencies(self.probabilities, temperature=0.0).tolist() == [20_000, 0, 0, 0, 0]

    def test_top_k(self):
        counts = frequencies(self.probabilities, top_k=4)
        assert counts[1] == 0
        expected = np.array([0.4, 0.25, 0.2, 0.1]) / 0.95 * 20_000
        assert chi_square(counts[[0, 2, 3, 4]], expected) < CHI_SQUARE[3]

    @pytest.mark.parametrize(
        ("top_p", "kept"),
        [(1e-9, {0}), (0.39, {0}), (0.41, {0, 2}), (0.64, {0, 2}), (0.66, {0, 2, 3}), (0.94, {0, 2, 3, 4})],
    )
    def test_top_p_keeps_the_token_that_crosses(self, top_p, kept):
        counts = frequencies(self.probabilities, top_p=top_p)
        assert set(np.flatnonzero(counts)) == kept

    def test_top_p_counts_the_mass_that_top_k_left(self):
        # 0.4 of the 0.65 that two tokens hold is 0.615.
        assert set(np.flatnonzero(frequencies(self.probabilities, top_k=2, top_p=0.6))) == {0}
        assert set(np.flatnonzero(frequencies(self.probabilities, top_k=2, top_p=0.63))) == {0, 2}

    def test_temperature_comes_before_top_p(self):
        # At temperature 0.5 the likeliest token holds 0.16 / 0.275 = 0.58.
        assert set(np.flatnonzero(frequencies(self.probabilities, temperature=0.5, top_p=0.57))) == {0}

    def test_top_k_beyond_the_vocabulary_keeps_all(self):
        assert frequencies(self.probabilities, top_k=99).min() > 0

    def test_tiny_temperature_is_greedy(self):
        assert frequencies(self.probabilities, temperature=1e-30, rows=50)[0] == 50


def test_logprobs_are_of_the_whole_distribution_at_temperature_one():
    torch.manual_seed(0)
    logits_BV = torch.randn(6, 40) * 3
    for params in ({}, {"temperature": 0.0}, {"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.5, "temperature": 2.0}):
        ids_B, logprobs_B = sample(logits_BV, draws(6, **params))
        expected_B = logits_BV.log_softmax(-1).gather(1, ids_B[:, None])[:, 0]
        torch.testing.assert_close(logprobs_B, expected_B, atol=1e-6, rtol=0)


def oracle(logits_V, temperature, top_p, top_k, uniform):
    """The definition, slowly, in float64: sort, keep, add up."""
    weights_V = torch.exp((logits_V - logits_V.max()) / np.float32(temperature)).double().numpy()
    order = np.argsort(-weights_V, kind="stable")[: top_k or None]
    if top_p == 1 and top_k == 0:
        order = np.arange(len(weights_V))
    cumulative = np.cumsum(weights_V[order])
    kept = int(np.argmax(cumulative >= top_p * cumulative[-1])) + 1
    return order[int(np.argmax(cumulative > uniform * cumulative[kept - 1]))]


@pytest.mark.parametrize("vocabulary", [30, CANDIDATES, 3 * CANDIDATES])
def test_mixed_rows_equal_the_definition_row_by_row(vocabulary):
    """Flat rows, whose nucleus is wider than the candidates, and steep ones; all kinds of parameters side by side."""
    rng = np.random.default_rng(1)
    rows = 240
    steepness_B1 = torch.tensor(rng.choice([0.1, 1.0, 5.0], (rows, 1)), dtype=torch.float32)
    logits_BV = torch.tensor(rng.normal(size=(rows, vocabulary)), dtype=torch.float32) * steepness_B1
    mixed = Draws(
        rng.choice([0.0, 0.6, 1.0, 1.5], rows).astype(np.float32),
        rng.choice([0.1, 0.5, 0.95, 1.0], rows),
        rng.choice([0, 0, 1, 7, CANDIDATES, CANDIDATES + 1, 2 * CANDIDATES, 10**6], rows),
        np.array([stream_key(seed, 3) for seed in range(rows)]),
        rng.integers(0, 1000, rows),
    )
    ids_B, _ = sample(logits_BV, mixed)
    uniform_B = uniforms(mixed.key_B, mixed.position_B)
    for row in range(rows):
        temperature, top_p, top_k = mixed.temperature_B[row], mixed.top_p_B[row], int(mixed.top_k_B[row])
        if temperature == 0:
            expected = int(logits_BV[row].argmax())
        else:
            expected = oracle(logits_BV[row], temperature, top_p, top_k, uniform_B[row])
        assert ids_B[row] == expected, (row, temperature, top_p, top_k)


def test_a_token_without_probability_is_never_drawn(monkeypatch):
    """Not even at the ends of the interval, where rounding could push the threshold over the last weight."""
    logits_BV = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]]).expand(2, -1)
    monkeypatch.setattr(sampler, "uniforms", lambda key_B, position_B: np.array([0.0, 1 - 2.0**-53]))
    for params in ({}, {"top_k": 3}, {"top_p": 0.999}):
        assert sample(logits_BV, draws(2, **params))[0].sort().values.tolist() == [1, 2]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_named(broken):
    logits_BV = torch.zeros(2, 5)
    logits_BV[1, 3] = broken
    with pytest.raises(CheckpointError, match="not finite"):
        sample(logits_BV, draws(2))
