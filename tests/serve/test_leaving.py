"""Clients that leave, wait too long or come too many, and the end of the server: no row stays behind."""

import asyncio
import threading
import time

import httpx2 as httpx
import openai
import pytest
import torch

from octavo.model.transformer import Transformer
from octavo.serve.config import ServeConfig, ServiceConfig
from octavo.weights.hf import load_model, load_tokenizer, save_model
from tiny_server import run_apart, save_tiny, serving, tiny_tokenizer

LONG = {"model": "long", "messages": [{"role": "user", "content": "What is this?"}], "max_tokens": 30_000, "seed": 1}
"""Takes minutes, unless somebody ends it."""


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """Never ends by itself: all tokens are equally likely, but those that end something are not."""
    folder = tmp_path_factory.mktemp("long")
    save_tiny(folder / "plain", tiny_tokenizer(), max_positions=32_768)
    plain, tokenizer = load_model(folder / "plain"), load_tokenizer(folder / "plain")
    model = Transformer(plain.config.model_copy(update={"tie_embeddings": False}))
    assert model.head is not None
    with torch.no_grad():
        model.embed.weight[:, 0] = 10.0
        model.norm.weight.zero_()[0] = 1.0
        model.head.weight.zero_()
        model.head.weight[sorted(tokenizer.end_ids), 0] = -10.0
    save_model(folder / "endless", model, tokenizer)
    return folder / "endless"


@pytest.fixture
def server(long_model):
    service = ServiceConfig(max_rows=2, queue_rows=2)
    with serving({"long": long_model}, service, ServeConfig(shutdown_seconds=20, pages=False)) as server:
        yield server


def idle(server) -> bool:
    """Whether nobody uses a row, and nobody waits, before long."""
    for _ in range(500):
        if server.service.rows.get("long", 0) == 0:
            (loaded,) = server.service.loaded
            if loaded.engine.free_slots == 2 and not loaded.engine.has_work:
                return True
        time.sleep(0.01)
    return False


def metric(server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_client_that_leaves_a_stream_frees_its_rows(server):
    with server.client() as client:
        stream = client.chat.completions.create(**LONG, n=2, stream=True)
        for _ in range(5):
            next(iter(stream))
        assert server.service.loaded[0].engine.free_slots == 0
        stream.close()
        assert idle(server)
    assert metric(server, 'octavo_requests_total{model="long",reason="cancelled"}') == 1


def test_a_client_that_leaves_before_the_answer_frees_its_rows(server):
    with server.client(timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**LONG, n=2)
    assert idle(server)


def test_some_leave_while_others_stay(server):
    """Random cancellations: those who stay get what they would have got alone."""

    async def ask():
        client = server.async_client()
        short = {**LONG, "max_tokens": 20}
        alone = (await client.chat.completions.create(**short)).choices[0].message.content

        async def leave():
            stream = await client.chat.completions.create(**LONG, stream=True)
            async for _ in stream:
                break
            await stream.close()

        async def stay():
            return (await client.chat.completions.create(**short)).choices[0].message.content

        for _ in range(3):
            replies = await asyncio.gather(leave(), stay(), leave(), stay())
            assert replies == [None, alone, None, alone]
        await client.close()

    run_apart(ask())
    assert idle(server)


def test_too_many_wait(server):
    with server.client() as client:
        stream = client.chat.completions.create(**LONG, n=4, stream=True)  # two write, two wait
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**LONG)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        stream.close()
        assert idle(server)
        assert client.chat.completions.create(**{**LONG, "max_tokens": 2}).usage.completion_tokens == 2
    assert metric(server, 'octavo_requests_total{model="long",reason="queue_full"}') == 1


def test_a_deadline_ends_a_request(long_model):
    with (
        serving({"long": long_model}, ServiceConfig(max_rows=2, deadline_seconds=1.0)) as server,
        server.client() as client,
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**LONG)
        assert (caught.value.status_code, caught.value.code) == (408, "deadline")
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match="deadline"):
            for _ in client.chat.completions.create(**LONG, stream=True):
                pass
        assert idle(server)


def test_what_runs_is_finished_when_the_server_stops(long_model):
    told: list[str] = []
    with serving({"long": long_model}, ServiceConfig(max_rows=2)) as server:
        client = server.client()
        stream = iter(client.chat.completions.create(**{**LONG, "max_tokens": 300}, stream=True))
        told += [choice.finish_reason for choice in next(stream).choices]
        reading = threading.Thread(target=lambda: told.extend(chunk.choices[0].finish_reason for chunk in stream))
        reading.start()
    # The server has stopped here.
    reading.join()
    client.close()
    assert told[-1] == "length"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


def test_rows_that_do_not_fit_together_take_turns(long_model):
    """Memory for 2 x 512 tokens: a long one runs alone, short ones together, and all end."""
    per_token = 1 * 2 * 8 * 4
    service = ServiceConfig(max_rows=8, memory_bytes=2**30, cache_share=1024 * per_token / 2**30)
    asked = {**LONG, "max_tokens": 400}

    async def ask(server):
        client = server.async_client()
        many = [client.chat.completions.create(**{**asked, "max_tokens": 20}) for _ in range(12)]
        replies = await asyncio.gather(
            client.chat.completions.create(**asked), *many, client.chat.completions.create(**asked)
        )
        await client.close()
        return [reply.usage.completion_tokens for reply in replies]

    with serving({"long": long_model}, service) as server:
        assert run_apart(ask(server)) == [400, *[20] * 12, 400]
        cache = server.service.loaded[0].engine._slots._cache
        assert cache.rows * cache.max_tokens <= 1024
