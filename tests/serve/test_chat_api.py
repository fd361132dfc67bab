"""Chat completions through the real client of OpenAI's API, against a live server."""

import json

import jsonschema
import openai
import pytest

from octavo.serve.config import ServiceConfig
from octavo.serve.loaded import Loaded
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.messages import Message
from octavo.text.template import encode_prompt
from tiny_server import SCHEMA, TOOL

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "What is this?"}]}


def drawn_by_the_engine(tiny, **params):
    loaded = Loaded("tiny", tiny, ServiceConfig(max_rows=8), 2**30)
    prompt = tuple(encode_prompt(loaded.tokenizer, [Message("user", "What is this?")]))
    request = CompletionRequest(prompt, SamplingParams(**params))
    return loaded.engine.complete([request])[0][0]


def test_a_reply_is_what_the_engine_draws(client, tiny):
    expected = drawn_by_the_engine(tiny, max_tokens=12, seed=5)
    reply = client.chat.completions.create(**ASK, max_tokens=12, seed=5)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == expected.finish_reason == "length"
    assert reply.usage.completion_tokens == 12
    assert reply.usage.prompt_tokens == len(expected.prompt_ids)
    assert reply.usage.total_tokens == 12 + len(expected.prompt_ids)
    assert reply.model == "tiny"


def test_a_stream_adds_up_to_the_reply(client):
    whole = client.chat.completions.create(**ASK, max_tokens=24, seed=3, n=3)
    chunks = list(
        client.chat.completions.create(
            **ASK, max_tokens=24, seed=3, n=3, stream=True, stream_options={"include_usage": True}
        )
    )
    texts, reasons = ["", "", ""], {}
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_seed_repeats_and_none_varies(client):
    def draw(**options):
        return client.chat.completions.create(**ASK, max_tokens=24, **options).choices[0].message.content

    assert draw(seed=7) == draw(seed=7)
    assert draw(seed=7) != draw(seed=8)
    assert draw() != draw()
    assert draw(temperature=0) == draw(temperature=0, seed=9)


def test_stop_ends_a_reply_before_the_stop(client):
    whole = client.chat.completions.create(**ASK, max_tokens=24, seed=3).choices[0].message.content
    stop = whole[5:7]
    cut = client.chat.completions.create(**ASK, max_tokens=24, seed=3, stop=[stop, "never seen"]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_logprobs_are_the_engine_s(client, tiny):
    expected = drawn_by_the_engine(tiny, max_tokens=6, seed=5, temperature=0.0)
    options = {"max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    told = client.chat.completions.create(**ASK, **options).choices[0].logprobs.content
    assert [token.logprob for token in told] == pytest.approx(expected.logprobs, abs=1e-4)
    assert b"".join(bytes(token.bytes) for token in told).decode("utf-8", "replace") == expected.text
    for token in told:
        logprobs = [alternative.logprob for alternative in token.top_logprobs]
        assert len(logprobs) == 3
        assert logprobs == sorted(logprobs, reverse=True)
        assert token.top_logprobs[0].token == token.token  # greedy
    streamed = [
        token
        for chunk in client.chat.completions.create(**ASK, **options, stream=True)
        for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else ())
    ]
    assert streamed == told


def test_json_of_a_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    for seed in range(4):
        reply = client.chat.completions.create(
            **ASK, max_tokens=200, seed=seed, response_format=form, reasoning_effort="none"
        ).choices[0]
        assert reply.finish_reason == "stop"
        jsonschema.validate(json.loads(reply.message.content), SCHEMA)


def test_any_json_object(client):
    form = {"type": "json_object"}
    replies = client.chat.completions.create(
        **ASK, n=8, max_tokens=300, seed=1, temperature=0.5, response_format=form, reasoning_effort="none"
    ).choices
    finished = [json.loads(reply.message.content) for reply in replies if reply.finish_reason == "stop"]
    assert finished
    assert all(isinstance(value, dict) for value in finished)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_function_that_must_be_called_is_called(client, choice, stream):
    options = {"max_tokens": 200, "seed": 2, "tools": [TOOL], "tool_choice": choice, "reasoning_effort": "none"}
    options |= {"parallel_tool_calls": False}
    if stream:
        chunks = list(client.chat.completions.create(**ASK, **options, stream=True))
        (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert call.index == 0
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
    else:
        reply = client.chat.completions.create(**ASK, **options).choices[0]
        (call,) = reply.message.tool_calls
        assert reply.finish_reason == "tool_calls"
        assert reply.message.content is None
    assert call.function.name == "look_up"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_calls_and_their_results_are_shown_to_the_model(client, tiny):
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": "is"}'}}
    messages = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "a number"},
    ]
    reply = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, tools=[TOOL], tool_choice="none"
    )
    written = [
        Message("user", "What is this?"),
        Message("assistant", '<tool_call>\n{"name": "look_up", "arguments": {"a": "is"}}\n</tool_call>'),
        Message("user", "<tool_response>\na number\n</tool_response>"),
    ]
    assert reply.usage.prompt_tokens == len(encode_prompt(Loaded("t", tiny, ServiceConfig(), 2**30).tokenizer, written))


def test_content_in_parts_and_the_developer_s_word(client):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]
    first = [{"role": "developer", "content": "the sum"}, {"role": "user", "content": parts}]
    second = [{"role": "system", "content": "the sum"}, {"role": "user", "content": "What is this?"}]
    replies = [
        client.chat.completions.create(model="tiny", messages=messages, seed=1, max_tokens=9)
        for messages in (first, second)
    ]
    assert replies[0].choices == replies[1].choices


def test_the_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "octavo"
    with pytest.raises(openai.NotFoundError, match="did you mean tiny"):
        client.models.retrieve("tinny")
