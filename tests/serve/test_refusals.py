"""What is wrong with a request is said in OpenAI's shape, with a status below 500, and the server goes on."""

import json

import httpx2 as httpx
import openai
import pytest

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "What is this?"}], "max_tokens": 4}


def post(served, content, path="/v1/chat/completions", **headers):
    headers = {"content-type": "application/json", **headers}
    return httpx.post(f"{served.url}{path}", content=content, headers=headers, timeout=30)


def refused(answer, status):
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


@pytest.fixture(autouse=True)
def _unharmed(served, client):
    yield
    assert client.chat.completions.create(**ASK, seed=5).usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("changed", "param", "said"),
    [
        ({"n": 10**9}, "n", "less than or equal to 1024"),
        ({"n": 65}, "n", "n is 65, expected at most 64"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 10**30}, "max_tokens", "less than or equal to"),
        ({"max_tokens": 511}, "max_tokens", "more than the context of 512"),
        ({"max_tokens": "8"}, "max_tokens", "valid integer"),
        ({"max_completion_tokens": True}, "max_completion_tokens", "valid integer"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"seed": 2**64}, "seed", "less than"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"stop": ["a"] * 17}, "stop", "should"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "hi"}, "messages", "valid list"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0", "'system', 'developer', 'user'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "Field required"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None, "must end with a user message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "should be"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, None, "expected at most 511"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content", "unicode"),
        ({"model": "\ud800"}, "model", "unicode"),
        ({"model": 5}, "model", "valid string"),
        ({"model": "../../etc/passwd"}, "model", "no model '../../etc/passwd' is served here"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"response_format": {"type": "yaml"}}, "response_format", "expected tags"),
    ],
)
def test_a_wrong_field_is_named(served, changed, param, said):
    answer = post(served, json.dumps({**ASK, **changed}))
    error = refused(answer, 404 if "is served here" in said else 400)
    assert said in error["message"]
    assert (error["param"] or "").startswith(param or "")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Field required"),
        (b"{", "not JSON"),
        (b"[]", "valid dictionary"),
        (b"null", ""),
        (b'{"model": "tiny\xff"}', "parsing the body"),
        (b"[" * 100_000, "parsing the body"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "temperature"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "top_p": Infinity}', "top_p"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "seed": 1e400}', "seed"),
    ],
)
def test_a_body_that_is_no_request(served, content, said):
    assert said in refused(post(served, content), 400)["message"]


def test_only_json_is_read(served):
    refused(post(served, b'{"model": "tiny"}', **{"content-type": "text/plain"}), 400)


def test_other_paths_and_methods(served):
    assert "nothing is at /v1/nowhere" in refused(httpx.get(f"{served.url}/v1/nowhere"), 404)["message"]
    refused(httpx.get(f"{served.url}/v1/chat/completions"), 405)


def test_the_client_gets_its_own_exceptions(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**ASK, "model": "other"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, extra_body={"max_completion_tokens": 5000})
    assert caught.value.code == "context_length_exceeded"


def _nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"type": "string", "pattern": "(["},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "http://example.org/schema.json"},
        {"enum": []},
        {"type": "integer", "minimum": 5, "maximum": 1},
        _nested(200),
        {"enum": [str(number) for number in range(100_000)]},
        {"type": "string", "maxLength": -1},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_that_cannot_be_enforced(served, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = post(served, json.dumps({**ASK, "response_format": form}))
    assert refused(answer, 400)["code"] == "invalid_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "string", "pattern": f"^(a?){{{n}}}a{{{n}}}$"} for n in range(1, 30)]},
        {"type": "string", "pattern": "^(a|b|ab)*c{0,500}$"},
        {"type": "string", "pattern": "(a{1,1000}){1,1000}"},
        {"type": "string", "pattern": "((a|aa)+)+" * 200},
        {"allOf": [{"type": "object", "properties": {f"p{n}": {"type": "string"}}} for n in range(20)]},
    ],
    ids=["ambiguous", "long", "longer", "nested", "many"],
)
def test_a_schema_that_is_much_work_is_followed_or_refused(served, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = post(served, json.dumps({**ASK, "response_format": form, "reasoning_effort": "none"}))
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert refused(answer, 400)["code"] == "invalid_schema"
