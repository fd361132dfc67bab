"""Models as a library, sync and async, against the engine alone."""

import asyncio
import subprocess
import sys
import threading

import pytest
import torch

import octavo
from octavo.engine.engine import Engine
from octavo.errors import CheckpointError, RequestError
from octavo.model.config import GQAConfig, ModelConfig
from octavo.model.transformer import Transformer
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.template import encode_prompt
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import save_model
from tiny_server import run_apart

DRAW = {"max_tokens": 12, "seed": 4, "temperature": 1.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["What is this?"], 280)
    shape = {"vocab_size": tokenizer.vocab_size, "width": 16, "layers": 1, "ffn_width": 16, "max_positions": 256}
    model = Transformer(ModelConfig(**shape, attention=GQAConfig(heads=2, kv_heads=1, qkv_bias=True), init_std=0.3))
    path = tmp_path_factory.mktemp("library") / "model"
    save_model(path, model, tokenizer)
    params = SamplingParams(**DRAW)
    prompt = tuple(encode_prompt(tokenizer, [octavo.Message("user", "What is this?")]))
    return path, Engine(model, tokenizer).complete([CompletionRequest(prompt, params)])[0][0]


@pytest.fixture(scope="module")
def model(folder):
    with octavo.load(folder[0]) as model:
        yield model


def test_a_reply_is_what_the_engine_draws(model, folder):
    reply = model.chat("What is this?", **DRAW)
    assert (reply.content, reply.finish_reason) == (folder[1].text, folder[1].finish_reason)
    assert str(reply) == reply.content
    assert reply.usage.completion_tokens == len(folder[1].ids)
    assert model.chat([octavo.Message("user", "What is this?")], **DRAW).content == reply.content


def test_pieces_add_up(model):
    whole = model.chat("What is this?", **DRAW)
    assert "".join(delta.content for delta in model.stream("What is this?", **DRAW)) == whole.content


def test_async_and_many_at_once(model):
    async def ask():
        replies = await asyncio.gather(*(model.achat("What is this?", **{**DRAW, "seed": seed}) for seed in range(8)))
        pieces = [delta.content async for delta in model.astream("What is this?", **DRAW)]
        return replies, "".join(pieces)

    replies, streamed = run_apart(ask())
    assert [reply.content for reply in replies] == [
        model.chat("What is this?", **{**DRAW, "seed": seed}).content for seed in range(8)
    ]
    assert streamed == replies[4].content


def test_who_leaves_the_loop_stops_the_model(model):
    stream = model.stream("What is this?", **{**DRAW, "max_tokens": 240})
    next(stream)
    stream.close()
    assert model.chat("What is this?", **DRAW).content
    engine = model._loaded.engine
    assert model._driver.call(lambda: (engine.has_work, engine.free_slots)).result(10) == (False, 16)


def test_errors_are_raised_where_one_asks(model):
    with pytest.raises(RequestError, match="expected at most 255"):
        model.chat("What is this? " * 100)
    with pytest.raises(CheckpointError, match="no such folder"):
        octavo.load("no/such/folder")


def test_closing_ends_the_thread(folder):
    before = threading.active_count()
    with octavo.load(folder[0]) as model:
        assert threading.active_count() == before + 1
        model.chat("What is this?", max_tokens=2)
    assert threading.active_count() == before


def test_importing_octavo_is_light():
    script = (
        "import sys, octavo; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pydantic', 'fastapi')))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = octavo.lod
