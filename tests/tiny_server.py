"""A live server on a free loopback port, with tiny models, and the real client of OpenAI's API."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import openai
import torch
import uvicorn

from octavo.model.config import GQAConfig, ModelConfig
from octavo.model.transformer import Transformer
from octavo.serve.app import create_app
from octavo.serve.config import ServeConfig, ServiceConfig
from octavo.serve.metrics import Metrics
from octavo.serve.service import Service
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import save_model

T = TypeVar("T")
TEXT = ['What is this? {"a": [1, 2], "name": "x"} <tool_call> </tool_call> the sum of two numbers']


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, 320)


def save_tiny(folder: Path, tokenizer: Tokenizer, max_positions: int = 512, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    attention = GQAConfig(heads=2, kv_heads=1, qkv_bias=True)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, width=16, layers=1, ffn_width=16, attention=attention, tie_embeddings=True,
        max_positions=max_positions, init_std=0.3,
    )  # fmt: skip
    save_model(folder, Transformer(config), tokenizer)
    return folder


SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["what", "is"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": SCHEMA}}


@dataclass
class Served:
    """A running server."""

    url: str
    service: Service
    config: ServeConfig

    def client(self, key: str = "none", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def async_client(self, key: str = "none") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a thread of its own: drivers of browsers keep a loop running on the tests' thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextmanager
def serving(paths: dict[str, Path], service: ServiceConfig | None = None, config: ServeConfig | None = None):
    """Run a server in a thread of its own."""
    config = config or ServeConfig(pages=False)
    built = Service(paths, service, Metrics())
    app = create_app(built, config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        options = {"log_level": "error", "lifespan": "on", "timeout_graceful_shutdown": 2}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        try:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", built, config)
        finally:
            server.should_exit = True
            thread.join()
