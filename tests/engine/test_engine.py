import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.errors import ConfigError, RequestError
from octavo.tasks.types import CompletionRequest, SamplingParams


def request(prompt=(3, 4, 5), samples=1, max_tokens=12, **params):
    return CompletionRequest(tuple(prompt), SamplingParams(max_tokens=max_tokens, **params), samples)


def mixed_requests(count=9):
    """Prompts of many lengths, group sizes and ways of drawing."""
    rng = np.random.default_rng(5)
    ways = [
        {"temperature": 0.0},
        {},
        {"temperature": 0.7, "top_p": 0.8},
        {"top_k": 3},
        {"temperature": 1.3, "top_k": 9, "top_p": 0.6, "stop": ("ab", "q", "cad")},
    ]
    return [
        request(
            rng.integers(1, 23, rng.integers(1, 18)).tolist(),
            samples=int(rng.integers(1, 5)),
            max_tokens=int(rng.integers(1, 25)),
            seed=index // 2,
            **ways[index % len(ways)],
        )
        for index in range(count)
    ]


@pytest.fixture
def engine(toy, toy_tokenizer):
    return lambda **config: Engine(toy, toy_tokenizer, EngineConfig(**config))


@pytest.mark.parametrize("max_rows", [1, 3, 64])
@pytest.mark.parametrize("prefill_tokens", [4, 4096])
def test_equals_the_naive_loop_whatever_the_batch(engine, naive, same, max_rows, prefill_tokens):
    requests = mixed_requests()
    built = engine(max_rows=max_rows, prefill_tokens=prefill_tokens)
    same(built.complete(requests), [naive(request) for request in requests])
    assert built.free_slots == max_rows
    assert not built.has_work


def test_order_and_neighbours_do_not_matter(engine, same):
    requests = mixed_requests(12)
    together = engine(max_rows=5).complete(requests)
    backwards = engine(max_rows=7).complete(requests[::-1])[::-1]
    alone = [engine(max_rows=2).complete([request])[0] for request in requests]
    same(together, backwards)
    same(together, alone)


def test_one_engine_serves_call_after_call(engine, same):
    requests = mixed_requests()
    built = engine(max_rows=4)
    first = built.complete(requests)
    same(built.complete(requests[3:]), first[3:])
    same(built.complete(requests), first)
    assert built.complete([]) == []


def test_a_group_reads_its_prompt_once(engine, toy):
    engine(max_rows=3).complete([request(range(1, 8), samples=11, max_tokens=4, top_k=5)])
    assert [tokens for _, tokens in toy.passes if tokens > 1] == [7]


def test_prompts_are_read_together_and_decoding_covers_all_rows(engine, toy):
    engine(max_rows=8).complete([request((1, 2, 3, start), max_tokens=3, temperature=0) for start in (4, 5, 6)])
    assert toy.passes == [(3, 4), (3, 1), (3, 1)]


def test_a_long_prompt_is_read_in_pieces(engine, toy, naive, same):
    long = request(range(1, 20), max_tokens=2, temperature=0)
    same(engine(prefill_tokens=5).complete([long]), [naive(long)])
    assert [tokens for _, tokens in toy.passes[:4]] == [5, 5, 5, 4]


def test_samples_of_a_group_differ_and_the_seed_decides(engine):
    def ids(seed):
        (group,) = engine().complete([request(samples=6, max_tokens=10, seed=seed)])
        return [completion.ids for completion in group]

    assert len(set(ids(0))) == 6
    assert ids(0) == ids(0)
    assert not set(ids(0)) & set(ids(1))


class TestEnds:
    def test_end_token_is_in_the_ids_and_not_in_the_text(self, engine, toy_tokenizer):
        groups = engine().complete([request(samples=40, max_tokens=30)])
        stopped = [completion for completion in groups[0] if completion.finish_reason == "stop"]
        assert stopped
        for completion in stopped:
            assert completion.ids[-1] == 0
            assert 0 not in completion.ids[:-1]
            assert completion.text == toy_tokenizer.decode(completion.ids[:-1])
            assert len(completion.text) == len(completion.ids) - 1 == len(completion.logprobs) - 1

    def test_max_tokens(self, engine):
        (group,) = engine().complete([request(samples=40, max_tokens=3)])
        for completion in group:
            assert len(completion.ids) == 3 or completion.ids[-1] == 0
            assert completion.finish_reason == ("stop" if completion.ids[-1] == 0 else "length")

    def test_what_does_not_fit_is_clipped(self, engine):
        (group,) = engine(max_tokens=9).complete([request((1, 2, 3, 4), samples=30, max_tokens=10**6)])
        lengths = {len(completion.ids) for completion in group if completion.finish_reason == "length"}
        assert lengths == {5}

    def test_a_prompt_that_leaves_room_for_one_token(self, engine):
        (group,) = engine(max_tokens=5).complete([request((1, 2, 3, 4), samples=2, temperature=0)])
        assert [len(completion.ids) for completion in group] == [1, 1]

    def test_stop_string_over_several_tokens_is_cut(self, engine):
        whole = engine().complete([request(samples=9, max_tokens=20)])[0]
        long = [index for index, completion in enumerate(whole) if len(completion.text) >= 7]
        assert len(long) >= 3
        for index in long:
            completion = whole[index]
            stop = completion.text[4:7]
            cut = engine().complete([request(samples=9, max_tokens=20, stop=("zz", stop))])[0][index]
            end = completion.text.index(stop)
            assert cut.text == completion.text[:end]
            assert cut.ids == completion.ids[: end + 3]
            assert cut.logprobs == completion.logprobs[: end + 3]
            assert cut.finish_reason == "stop"


class TestSteps:
    def test_waiting_requests_enter_as_rows_get_free(self, engine, naive, same):
        built = engine(max_rows=2)
        first = built.submit(request((1,), samples=2, max_tokens=4, temperature=0.0))
        built.step()
        late = [request((2, 3), max_tokens=6), request((4,), max_tokens=2, seed=9)]
        ids = [built.submit(each) for each in late]
        assert built.free_slots == 0
        finished = {}
        while built.has_work:
            for event in built.step():
                finished[event.request_id, event.sample] = event.completion
        assert set(finished) == {(first, 0), (first, 1), (ids[0], 0), (ids[1], 0)}
        same([[finished[each, 0]] for each in ids], [naive(each) for each in late])

    def test_streamed_text_adds_up_and_holds_back_stop_strings(self, engine):
        built = engine()
        for stop in ((), ("ab", "cde", "q")):
            built.submit(request(samples=20, max_tokens=25, stop=stop), streamed=True)
        texts, completions = {}, {}
        while built.has_work:
            for event in built.step():
                key = event.request_id, event.sample
                assert key not in completions
                texts[key] = texts.get(key, "") + event.text
                if event.completion:
                    completions[key] = event.completion
        assert len(completions) == 40
        assert all(texts[key] == completion.text for key, completion in completions.items())

    def test_without_streaming_there_is_one_event_a_sample(self, engine):
        built = engine()
        built.submit(request(samples=7, stop=("xyz",)))
        events = []
        while built.has_work:
            events += built.step()
        assert sorted(event.sample for event in events) == list(range(7))
        assert all(event.completion and not event.text for event in events)


class TestCancel:
    def test_frees_rows_at_once_and_leaves_the_others_alone(self, engine, naive, same):
        built = engine(max_rows=4)
        kept, dropped = request((5, 6), samples=2, seed=3), request((7,), samples=5)
        built.submit(dropped)
        built.step()
        assert built.free_slots == 0
        kept_id = built.submit(kept)
        events = built.cancel(0)
        assert built.free_slots == 4
        assert sorted(event.sample for event in events) == [0, 1, 2, 3, 4]
        for event in events:
            assert event.completion.finish_reason == "cancelled"
            whole = naive(dropped)[event.sample]
            assert event.completion.ids == whole.ids[: len(event.completion.ids)]
        assert sorted(len(event.completion.ids) for event in events) == [0, 2, 2, 2, 2]
        results = {}
        while built.has_work:
            results |= {event.sample: event.completion for event in built.step()}
        same([[results[0], results[1]]], [naive(kept)])
        assert built.cancel(kept_id) == []
        assert built.cancel(99) == []

    def test_a_request_that_still_waits(self, engine):
        built = engine(max_rows=1)
        built.submit(request())
        waiting = built.submit(request(samples=2))
        assert [event.completion.ids for event in built.cancel(waiting)] == [(), ()]

    @pytest.mark.parametrize("after_passes", [0, 1, 5])
    def test_interrupt_leaves_a_clean_engine(self, engine, toy, same, after_passes):
        built = engine(max_rows=3)
        requests = mixed_requests()
        expected = built.complete(requests)
        forward, calls = toy.forward_cached, itertools.count()

        def interrupted(inputs, cache):
            if next(calls) == after_passes:
                raise KeyboardInterrupt
            return forward(inputs, cache)

        toy.forward_cached = interrupted
        with pytest.raises(KeyboardInterrupt):
            built.complete(requests)
        toy.forward_cached = forward
        assert built.free_slots == 3
        assert not built.has_work
        same(built.complete(requests), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_slots_never_leak_and_every_sample_ends_once(engine, data):
    max_rows = data.draw(st.integers(1, 6))
    built = engine(max_rows=max_rows, prefill_tokens=data.draw(st.integers(1, 20)))
    expected, ended = set(), []
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["submit", "step", "step", "cancel"]))
        events = []
        if action == "submit":
            new = data.draw(
                st.builds(
                    request,
                    st.lists(st.integers(0, 22), min_size=1, max_size=9),
                    samples=st.integers(1, 5),
                    max_tokens=st.integers(1, 9),
                    temperature=st.sampled_from([0.0, 1.0]),
                    stop=st.sampled_from([(), ("ab", "c")]),
                )
            )
            number = built.submit(new, streamed=data.draw(st.booleans()))
            expected |= {(number, index) for index in range(new.samples)}
        elif action == "step":
            events = built.step()
        elif expected:
            events = built.cancel(data.draw(st.sampled_from(sorted(expected)))[0])
        ended += [(event.request_id, event.sample) for event in events if event.completion]
        assert 0 <= built.free_slots <= max_rows
        assert built.has_work == (len(ended) < len(expected))
    while built.has_work:
        ended += [(event.request_id, event.sample) for event in built.step() if event.completion]
    assert sorted(ended) == sorted(expected)
    assert built.free_slots == max_rows


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request(()), "prompt is empty"),
        (request(range(1, 13), max_tokens=1), "12 tokens, expected at most 11"),
        (request((1, 23)), "token id 23, expected 0 to 22"),
        (request((-1,)), "token id -1"),
        (request(temperature=-0.1), "temperature is -0.1"),
        (request(temperature=float("nan")), "temperature is nan"),
        (request(temperature=float("inf")), "temperature is inf"),
        (request(top_p=0.0), "top_p is 0.0"),
        (request(top_p=1.01), "top_p is 1.01"),
        (request(top_p=float("nan")), "top_p is nan"),
        (request(top_k=-1), "top_k is -1"),
        (request(max_tokens=0), "max_tokens is 0"),
        (request(samples=0), "samples is 0"),
        (request(stop=("a", "")), "empty string"),
    ],
)
def test_bad_requests_are_refused(engine, bad, words):
    built = engine(max_tokens=12, max_rows=2)
    with pytest.raises(RequestError, match=words) as caught:
        built.complete([request(), bad])
    assert "\n" not in str(caught.value)
    assert built.free_slots == 2
    assert not built.has_work


def test_longer_sequences_than_the_model_reads_are_refused(engine):
    with pytest.raises(ConfigError, match="max_tokens is 41, expected at most the model's 40"):
        engine(max_tokens=41)
