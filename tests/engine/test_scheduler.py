import pytest

from octavo.engine.config import EngineConfig
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Group, Sequence
from octavo.tasks.types import CompletionRequest, SamplingParams


def group(request_id, prompt_tokens=4, samples=1):
    made = Group(request_id, CompletionRequest((1,) * prompt_tokens, SamplingParams(8), samples), False, 8)
    made.waiting.extend(Sequence(made, index, None) for index in range(samples))
    return made


def queue(*groups, max_rows=8, prefill_tokens=10):
    scheduler = Scheduler(EngineConfig(max_rows=max_rows, prefill_tokens=prefill_tokens))
    for each in groups:
        scheduler.add(each)
    return scheduler


def admitted(scheduler, free_rows):
    return [(g.request_id, [s.sample for s in sequences]) for g, sequences in scheduler.admit(free_rows)]


def test_first_come_first_served_within_the_token_budget():
    scheduler = queue(group(0), group(1), group(2, prompt_tokens=3), group(3, prompt_tokens=1))
    # 4 + 4 tokens leave 2: the third does not fit, and the fourth does not overtake it.
    assert admitted(scheduler, 8) == [(0, [0]), (1, [0])]
    assert admitted(scheduler, 6) == [(2, [0]), (3, [0])]
    assert scheduler.waiting == 0
    assert admitted(scheduler, 4) == []


def test_a_prompt_beyond_the_budget_enters_alone():
    scheduler = queue(group(0, prompt_tokens=50), group(1))
    assert admitted(scheduler, 8) == [(0, [0])]
    assert admitted(scheduler, 7) == [(1, [0])]


def test_a_group_enters_in_parts_and_pays_for_its_prompt_once():
    first, second = group(0, prompt_tokens=8, samples=5), group(1, prompt_tokens=8)
    scheduler = queue(first, second)
    assert admitted(scheduler, 3) == [(0, [0, 1, 2])]
    assert scheduler.waiting == 3
    first.prefix = object()
    assert admitted(scheduler, 3) == [(0, [3, 4]), (1, [0])]


def test_a_long_queue_waits_until_several_rows_are_free():
    scheduler = queue(*[group(index) for index in range(10)], max_rows=64)
    assert admitted(scheduler, 3) == []
    assert [number for number, _ in admitted(scheduler, 4)] == [0, 1]


def test_a_short_queue_does_not_wait():
    assert admitted(queue(group(0), max_rows=64), 1) == [(0, [0])]


@pytest.mark.parametrize("removed", [0, 1])
def test_removing(removed):
    scheduler = queue(group(0, samples=2), group(1, samples=2))
    assert [sequence.sample for sequence in scheduler.remove(removed)] == [0, 1]
    assert scheduler.remove(removed) == []
    assert scheduler.waiting == 2
    assert [number for number, _ in admitted(scheduler, 8)] == [1 - removed]
