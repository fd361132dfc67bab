import numpy as np
import pytest

from octavo.engine.runner import Runner
from octavo.engine.sampler import stream_key
from octavo.engine.sequence import Group, Sequence
from octavo.engine.slots import Slots
from octavo.tasks.types import CompletionRequest, SamplingParams

NO_END = np.zeros(23, bool)


def samples(request_id, count, limit=9, **params):
    group = Group(request_id, CompletionRequest((1,), SamplingParams(limit, **params), count), False, limit)
    return [Sequence(group, index, None) for index in range(count)]


@pytest.fixture
def slots(toy):
    """Rows 0 and 1 of one group (prompt 1, 2), row 2 of another (prompt 3)."""
    made = Slots(toy, max_rows=5, max_tokens=30)
    made.reserve(3, 12)
    first, second = Runner(toy, 100).prefill([[1, 2], [3]])
    made.enter(samples(0, 2, temperature=0.5, top_k=4, seed=8), first)
    made.enter(samples(1, 1, top_p=0.9), second)
    return made


def test_rows_begin_as_copies_of_their_prompt(slots):
    assert (slots.used, slots.free) == (3, 2)
    assert slots.cache.rows == 3
    assert slots.cache.lengths_B.tolist() == [2, 2, 1]
    draws = slots.draws(1)
    assert draws.temperature_B.tolist() == [0.5, 1.0]
    assert draws.top_k_B.tolist() == [4, 0]
    assert draws.top_p_B.tolist() == [1.0, 0.9]
    assert draws.key_B.tolist() == [stream_key(8, 1), stream_key(0, 0)]


def test_the_last_row_moves_into_the_gap_with_all_it_has(slots):
    slots.record(0, np.array([5, 6, 7]), np.array([-1.0, -2.0, -3.0]), NO_END)
    slots.record(2, np.array([8]), np.array([-0.5]), NO_END)
    moved = slots.sequences[2]
    slots.leave(0)
    assert slots.used == 2
    assert slots.sequences[0] is moved
    assert slots.drawn(0) == ([7, 8], [-3.0, -0.5])
    assert slots.drawn(1) == ([6], [-2.0])
    assert slots.last_B.tolist() == [8, 6]
    assert slots.draws(0).position_B.tolist() == [2, 1]
    assert slots.draws(0).top_p_B.tolist() == [0.9, 1.0]
    assert slots.cache.tokens_BL[0, :1].tolist() == [3]
    slots.leave(1)
    slots.leave(0)
    assert slots.free == 5


def test_record_tells_who_ends_by_token_or_by_limit(toy):
    slots = Slots(toy, max_rows=3, max_tokens=30)
    slots.reserve(3, 12)
    (prefix,) = Runner(toy, 100).prefill([[1]])
    for request_id, limit in enumerate((2, 3, 3)):
        slots.enter(samples(request_id, 1, limit), prefix)
    end_V = NO_END.copy()
    end_V[4] = True
    assert slots.record(0, np.array([1, 2, 3]), np.zeros(3), end_V).tolist() == [False, False, False]
    assert slots.record(0, np.array([1, 2, 4]), np.zeros(3), end_V).tolist() == [True, False, True]


def test_growing_keeps_the_rows_and_never_passes_the_bounds(slots):
    before = slots.cache.tokens_BL[:, :2].tolist()
    slots.reserve(4, 70)
    assert slots.cache.tokens_BL[:, :2].tolist() == before
    assert slots.cache.lengths_B.tolist() == [2, 2, 1]
    assert slots.cache.max_tokens == 30
    slots.reserve(5, 1)
    assert slots.cache.view(3).rows == 3


def test_memory_is_allocated_once(toy, slots):
    for row in reversed(range(slots.used)):
        slots.leave(row)
    assert slots.free == 5
    toy.new_cache = None  # any further allocation would raise
    slots.reserve(3, 12)


def test_cleared_it_keeps_no_cache(toy, slots):
    slots.clear()
    assert slots.free == 5
    toy.new_cache = None
    with pytest.raises(TypeError):
        slots.reserve(3, 12)
