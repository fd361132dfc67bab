import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import ConfigError
from octavo.optim.schedule import ScheduleConfig, learning_rate_factor


def test_values_by_hand():
    # 10 steps: warm up over 2, decay over the last 4 towards 0.2.
    factors = [learning_rate_factor(step, 10, 2, 0.4, 0.2) for step in range(11)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_constant_ignores_the_decay():
    schedule = ScheduleConfig(kind="constant", warmup_steps=4)
    assert [schedule.factor(step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@given(st.integers(1, 50), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_stays_in_range_and_never_rises_after_the_warmup(total, warmup, share, final):
    factors = [learning_rate_factor(step, total, warmup, share, final) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    after = factors[warmup:]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(after))


def test_an_impossible_share_is_refused():
    with pytest.raises(ConfigError, match="decay_share"):
        ScheduleConfig.parse({"decay_share": 1.5})
