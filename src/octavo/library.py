"""Models as a library: `from octavo import load`. The rooms behind it are loaded when a model is."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import psutil

from octavo.models import find_model
from octavo.serve.calls import ChatCall, Delta, EndReason, Sampling, Usage
from octavo.serve.config import ServiceConfig
from octavo.serve.driver import Driver, Item, Ticket
from octavo.serve.loaded import Loaded
from octavo.serve.pool import MEMORY_SHARE
from octavo.serve.prepare import Prepared, prepare_chat
from octavo.text.messages import Message


@dataclass(frozen=True)
class Reply:
    """What a model said."""

    content: str
    reasoning: str
    """Empty where it did not reason."""
    finish_reason: EndReason
    usage: Usage

    def __str__(self) -> str:
        return self.content


class Draw(TypedDict, total=False):
    """How a reply is drawn; what is left out is as `octavo chat` has it."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    seed: int


def load(
    name: str | Path, quantize: Literal["int8"] | None = None, max_rows: int = 16, max_tokens: int | None = None
) -> Model:
    """Open MODEL: a run folder, a Hugging Face model folder, a .gguf file, or a name that `octavo pull` knows.

    `quantize`: int8 needs a quarter of the memory and is faster, but not exact. `max_rows` replies are written at once,
    by whoever asks. `max_tokens` bounds prompt and reply together (None: what the model can read).

    Raises CheckpointError.
    """
    config = ServiceConfig(quantize=quantize, max_rows=max_rows, max_tokens=max_tokens)
    memory_bytes = int(psutil.virtual_memory().total * MEMORY_SHARE)
    return Model(Loaded(str(name), find_model(name), config, memory_bytes), config)


class Model:
    """A model in memory. Any thread, and any event loop, may ask it; what they ask is written together."""

    def __init__(self, loaded: Loaded, config: ServiceConfig) -> None:
        self._loaded, self._config = loaded, config
        self._driver = Driver()

    def chat(self, messages: str | Sequence[Message], thinking: bool | None = None, **sampling: Unpack[Draw]) -> Reply:
        """The next turn of a conversation, or the answer to a question.

        `thinking`: whether to reason first, for models that can do both. Raises DataError, RequestError.
        """
        return _gather(list(self.stream(messages, thinking, **sampling)))

    def stream(
        self, messages: str | Sequence[Message], thinking: bool | None = None, **sampling: Unpack[Draw]
    ) -> Iterator[Delta]:
        """As `chat`, piece by piece. Whoever leaves the loop stops the model."""
        prepared = self._prepare(messages, thinking, sampling)
        items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        ticket = self._ticket(prepared, items.put)
        ended = False
        try:
            while not ended:
                for delta in _read(prepared, items.get()):
                    ended = delta.end is not None
                    yield delta
        finally:
            if not ended:
                self._driver.cancel(ticket)

    async def achat(
        self, messages: str | Sequence[Message], thinking: bool | None = None, **sampling: Unpack[Draw]
    ) -> Reply:
        """As `chat`, without blocking the event loop."""
        return _gather([delta async for delta in self.astream(messages, thinking, **sampling)])

    async def astream(
        self, messages: str | Sequence[Message], thinking: bool | None = None, **sampling: Unpack[Draw]
    ) -> AsyncIterator[Delta]:
        """As `stream`, without blocking the event loop."""
        prepared = await asyncio.to_thread(self._prepare, messages, thinking, sampling)
        loop, items = asyncio.get_running_loop(), asyncio.Queue[Item]()
        ticket = self._ticket(prepared, lambda item: loop.call_soon_threadsafe(items.put_nowait, item))
        ended = False
        try:
            while not ended:
                for delta in _read(prepared, await items.get()):
                    ended = delta.end is not None
                    yield delta
        finally:
            if not ended:
                self._driver.cancel(ticket)

    def close(self) -> None:
        """Stop what runs, and let go of the memory."""
        self._driver.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(self, messages: str | Sequence[Message], thinking: bool | None, sampling: Draw) -> Prepared:
        said = (Message("user", messages),) if isinstance(messages, str) else tuple(messages)
        # Replies of reasoners are drawn as their authors evaluate them.
        draw = replace(Sampling(temperature=0.6, top_p=0.95), **sampling)
        return prepare_chat(self._loaded, ChatCall(self._loaded.name, said, draw, thinking), self._config)

    def _ticket(self, prepared: Prepared, put) -> Ticket:
        ticket = Ticket(self._loaded.engine, prepared.job, put, time.monotonic() + self._config.deadline_seconds)
        self._driver.submit(ticket)
        return ticket


def _read(prepared: Prepared, item: Item) -> Iterator[Delta]:
    if isinstance(item, Exception):
        raise item
    return prepared.readers[item.sample].read(item)


def _gather(deltas: Sequence[Delta]) -> Reply:
    end = deltas[-1].end
    assert end is not None
    content, reasoning = ("".join(getattr(delta, part) for delta in deltas) for part in ("content", "reasoning"))
    return Reply(content, reasoning, end.finish_reason, end.usage)
