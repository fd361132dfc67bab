"""Plain completions, responses, embeddings: through the real client."""

import base64
import json
import shutil

import jsonschema
import numpy as np
import openai
import pytest
import torch

from octavo.serve.config import ServiceConfig
from octavo.serve.loaded import Loaded
from octavo.tasks.types import CompletionRequest, SamplingParams
from tiny_server import SCHEMA, TOOL, save_tiny, serving, tiny_tokenizer


@pytest.fixture(scope="module")
def loaded(tiny):
    return Loaded("tiny", tiny, ServiceConfig(max_rows=8), 2**30)


def test_text_goes_on_as_the_engine_writes_it(client, loaded):
    prompt = tuple(loaded.tokenizer.encode("What is"))
    request = CompletionRequest(prompt, SamplingParams(max_tokens=10, seed=4), samples=2)
    expected = [completion.text for completion in loaded.engine.complete([request])[0]]
    for given in ("What is", list(prompt)):
        answer = client.completions.create(model="tiny", prompt=given, max_tokens=10, seed=4, n=2)
        assert [choice.text for choice in answer.choices] == expected
        assert answer.usage.prompt_tokens == len(prompt)
    streamed = ["", ""]
    for chunk in client.completions.create(model="tiny", prompt="What is", max_tokens=10, seed=4, n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == expected


def test_several_prompts_are_numbered_through(client):
    both = client.completions.create(model="tiny", prompt=["What is", "the sum"], max_tokens=5, seed=4, n=2)
    alone = client.completions.create(model="tiny", prompt="the sum", max_tokens=5, seed=4, n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in alone.choices]
    assert both.usage.completion_tokens == sum(len(choice.text) > 0 for choice in both.choices) * 5


def test_an_echoed_prompt_has_the_model_s_log_probs(client, loaded):
    """As lm-evaluation-harness asks for them: log-probs of a given text, and whether it is the likeliest."""
    ids = loaded.tokenizer.encode("What is this? the sum")
    answer = client.completions.create(
        model="tiny", prompt=[ids], max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1
    ).choices[0]
    with torch.inference_mode():
        hidden_TD = loaded.model(torch.tensor([ids]), torch.arange(len(ids))[None])[0]
        logprobs_TV = loaded.model.logits(hidden_TD).log_softmax(-1)
    expected = logprobs_TV[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    told = answer.logprobs
    assert told.token_logprobs[0] is None
    assert told.token_logprobs[1:-1] == pytest.approx(expected, abs=1e-4)
    assert told.token_logprobs[-1] == pytest.approx(float(logprobs_TV[-1].max()), abs=1e-4)
    assert "".join(told.tokens[: len(ids)]) == "What is this? the sum"
    for position, top in enumerate(told.top_logprobs[1:-1]):
        assert list(top.values()) == pytest.approx([float(logprobs_TV[position].max())], abs=1e-4)
    assert told.text_offset[:2] == [0, len(told.tokens[0])]
    only = client.completions.create(model="tiny", prompt="What is", max_tokens=0, logprobs=0, echo=True)
    assert (only.choices[0].text, only.usage.completion_tokens) == ("What is", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": []}, "prompt: should be"),
        ({"prompt": "x", "max_tokens": 0}, "without echo"),
        ({"prompt": "x", "echo": True, "stream": True}, "not for streams"),
        ({"prompt": [[400]]}, "token id 400"),
        ({"prompt": "word " * 600, "echo": True}, "expected at most 512"),
    ],
)
def test_completions_that_are_refused(client, options, said):
    with pytest.raises(openai.BadRequestError, match=said):
        client.completions.create(model="tiny", **options)


def test_a_response_is_the_chat_s_reply(client):
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "What is this?"}], max_tokens=12, temperature=0
    )
    response = client.responses.create(model="tiny", input="What is this?", max_output_tokens=12, temperature=0)
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.output_tokens == 12
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_streamed_response_adds_up(client):
    options = {"model": "tiny", "input": "What is this?", "instructions": "the sum", "max_output_tokens": 12}
    whole = client.responses.create(**options, temperature=0)
    events = list(client.responses.create(**options, temperature=0, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == whole.output_text
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}
    options |= {"max_output_tokens": 200, "reasoning": {"effort": "none"}, "text": form}
    with client.responses.stream(**options) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert "".join(pieces) == final.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_may_be_a_call_and_its_result_an_input(client, stream):
    function = {"type": "function", **TOOL["function"]}
    options = {"model": "tiny", "max_output_tokens": 200, "tools": [function], "reasoning": {"effort": "none"}}
    question = {"role": "user", "content": "What is this?"}
    given = client.responses.create(
        **options, input=[question], tool_choice="required", parallel_tool_calls=False, stream=stream
    )
    response = list(given)[-1].response if stream else given
    (call,) = response.output
    assert (call.type, call.name, response.status) == ("function_call", "look_up", "completed")
    jsonschema.validate(json.loads(call.arguments), SCHEMA)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "a number"}
    again = client.responses.create(
        model="tiny", input=[question, call.model_dump(exclude_none=True), result], max_output_tokens=3
    )
    assert again.usage.input_tokens > response.usage.input_tokens - 200


def test_a_response_of_a_schema(client):
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}
    response = client.responses.create(
        model="tiny", input="What?", text=form, reasoning={"effort": "none"}, max_output_tokens=200
    )
    jsonschema.validate(json.loads(response.output_text), SCHEMA)


def test_nothing_is_stored(client):
    with pytest.raises(openai.BadRequestError, match="stores no conversations"):
        client.responses.create(model="tiny", input="x", previous_response_id="resp_1")


def test_embeddings_of_models_that_make_them(client, tiny, tmp_path):
    with pytest.raises(openai.BadRequestError, match="no embedding model"):
        client.embeddings.create(model="tiny", input="What is this?")
    paths = {}
    for mode in ("lasttoken", "mean_tokens"):
        paths[mode] = tmp_path / mode
        shutil.copytree(tiny, paths[mode])
        (paths[mode] / "1_Pooling").mkdir()
        (paths[mode] / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    (paths["lasttoken"] / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Normalize"}]))
    loaded = Loaded("tiny", tiny, ServiceConfig(), 2**30)
    with serving(paths) as server, server.client() as other:
        for mode in paths:
            ids = loaded.tokenizer.encode("What is this?")
            if mode == "lasttoken":
                ids.append(loaded.tokenizer.token_id(loaded.tokenizer.end_of_document))
            with torch.inference_mode():
                hidden_TD = loaded.model(torch.tensor([ids]), torch.arange(len(ids))[None])[0]
            expected = hidden_TD[-1] / hidden_TD[-1].norm() if mode == "lasttoken" else hidden_TD.mean(0)
            answer = other.embeddings.create(model=mode, input=["What is this?", "the sum"], encoding_format="float")
            assert answer.data[0].embedding == pytest.approx(expected.tolist(), abs=1e-5)
            assert answer.data[1].embedding != answer.data[0].embedding
            coded = other.embeddings.create(model=mode, input="What is this?", encoding_format="base64")
            raw = coded.data[0].embedding
            values = np.frombuffer(base64.b64decode(raw), "<f4") if isinstance(raw, str) else raw
            assert list(values) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_broken_model_leaves_the_others_serving(tiny, tmp_path):
    broken = save_tiny(tmp_path / "broken", tiny_tokenizer())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    asked = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 2}
    with serving({"tiny": tiny, "broken": broken}) as server, server.client() as client:
        with pytest.raises(openai.InternalServerError, match="cannot be loaded") as caught:
            client.chat.completions.create(model="broken", **asked)
        assert str(tmp_path) not in str(caught.value)
        assert client.chat.completions.create(model="tiny", **asked).usage.completion_tokens >= 1
        states = {model.id: model.state for model in client.models.list()}
        assert states == {"tiny": "loaded", "broken": "failed"}
        shutil.copy(tiny / "model.safetensors", weights)
        assert client.chat.completions.create(model="broken", **asked).usage.completion_tokens >= 1
