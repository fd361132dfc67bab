"""The models of this process, behind one object: the API, the pages and the library talk to it, never to an engine."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from octavo.engine.sequence import Event
from octavo.serve.calls import ChatCall, Delta, Scored, TextCall, Usage
from octavo.serve.config import ServiceConfig
from octavo.serve.driver import Driver, Item, Job, Ticket, put_directly
from octavo.serve.errors import ApiError
from octavo.serve.loaded import Loaded
from octavo.serve.observer import Observer
from octavo.serve.pool import ModelInfo, Pool
from octavo.serve.pooling import Embedding
from octavo.serve.prepare import Prepared, prepare_chat, prepare_text, prompt_ids_of, scored

RETRY_SECONDS = 2


class Service:
    """Belongs to the event loop on which it is started."""

    def __init__(
        self, paths: Mapping[str, Path], config: ServiceConfig | None = None, observer: Observer | None = None
    ) -> None:
        """`paths`: the models, by the name under which they are asked for. Nothing is loaded yet."""
        self.config = config or ServiceConfig()
        self.observer = observer or Observer()
        self._pool = Pool(paths, self.config)
        self._driver: Driver | None = None
        self._rows = Counter[str]()

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        loop = asyncio.get_running_loop()

        def deliver(news: list[tuple[Ticket, Item]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(put_directly, news)

        self._driver = Driver(deliver)

    async def stop(self) -> None:
        """End the engines' thread. Whoever wants to finish what runs waits before."""
        if self._driver is not None:
            driver, self._driver = self._driver, None
            await asyncio.to_thread(driver.close)

    def models(self) -> list[ModelInfo]:
        """All models, loaded or not."""
        return self._pool.infos()

    def model(self, name: str) -> ModelInfo:
        """One of them. Raises ApiError for an unknown name."""
        return self._pool.info(name)

    @property
    def loaded(self) -> list[Loaded]:
        """Models in memory."""
        return self._pool.loaded

    @property
    def rows(self) -> Mapping[str, int]:
        """Sequences that run or wait, of each model."""
        return self._rows

    async def ready(self, name: str) -> None:
        """Load a model ahead. Raises ApiError."""
        async with self._pool.lease(name):
            pass

    def chat(self, call: ChatCall) -> AsyncGenerator[Delta, None]:
        """The next turn, piece by piece. Close the generator to stop it; its rows are free within one step.

        Raises ApiError, DataError, RequestError.
        """
        return self._write(call, prepare_chat)

    def text(self, call: TextCall) -> AsyncGenerator[Delta, None]:
        """Text that goes on, piece by piece; as `chat`."""
        return self._write(call, prepare_text)

    async def score(self, name: str, prompt: str | tuple[int, ...], top: int) -> Scored:
        """How likely a prompt is, token by token. Raises ApiError, DataError, RequestError."""
        self._admit(name, 1)
        try:
            async with self._pool.lease(name) as loaded:
                ids = await asyncio.to_thread(prompt_ids_of, loaded, prompt)
                await asyncio.to_thread(getattr, loaded, "guide")
                driver = self._running()
                return await asyncio.wrap_future(driver.call(lambda: scored(loaded, ids, top)))
        finally:
            self._rows[name] -= 1

    async def embed(self, name: str, inputs: Sequence[str | tuple[int, ...]]) -> list[Embedding]:
        """A vector for each text. Raises ApiError where the model makes none."""
        self._admit(name, 1)
        try:
            async with self._pool.lease(name) as loaded:
                pooling = loaded.pooling
                if pooling is None:
                    message = f"model {name} is no embedding model: its folder names no pooling (1_Pooling/config.json)"
                    raise ApiError(400, message, "unsupported", "model")
                vectors = []
                for text in inputs:
                    ids = await asyncio.to_thread(prompt_ids_of, loaded, text)
                    # One text between two steps, so that nobody waits long.
                    vectors.append(
                        await asyncio.wrap_future(self._running().call(lambda ids=ids: pooling.embed(loaded, ids)))
                    )
                return vectors
        finally:
            self._rows[name] -= 1

    def _running(self) -> Driver:
        if self._driver is None:
            raise ApiError(503, "the server is shutting down", "shutting_down")
        return self._driver

    async def _write(self, call: ChatCall | TextCall, prepare: Callable[..., Prepared]) -> AsyncGenerator[Delta, None]:
        started, samples, name = time.monotonic(), call.sampling.samples, call.model
        deadline = started + min(call.deadline_seconds or self.config.deadline_seconds, self.config.deadline_seconds)
        reason, usage, first = "error", Usage(), True
        self._admit(name, samples)
        try:
            async with self._pool.lease(name) as loaded:
                prepared = await asyncio.to_thread(prepare, loaded, call, self.config)
                async with aclosing(self._events(loaded, prepared.job, deadline)) as events:
                    async for event in events:
                        if first:
                            self.observer.first_token(name, time.monotonic() - started)
                            first = False
                        for delta in prepared.readers[event.sample].read(event):
                            if delta.end is not None:
                                reason, usage = delta.end.finish_reason, usage.with_sample(delta.end.usage)
                            yield delta
        except (GeneratorExit, asyncio.CancelledError):
            reason = "cancelled"
            raise
        finally:
            self._rows[name] -= samples
            self.observer.finished(name, reason, usage, time.monotonic() - started)

    async def _events(self, loaded: Loaded, job: Job, deadline: float) -> AsyncGenerator[Event, None]:
        driver = self._running()
        queue: asyncio.Queue[Item] = asyncio.Queue()
        ticket = Ticket(loaded.engine, job, queue.put_nowait, deadline)
        unfinished = job.request.samples
        driver.submit(ticket)
        try:
            while unfinished:
                item = await queue.get()
                if isinstance(item, Exception):
                    unfinished = 0
                    raise item
                unfinished -= item.completion is not None
                yield item
        finally:
            if unfinished and self._driver is not None:
                self._driver.cancel(ticket)

    def _admit(self, name: str, samples: int) -> None:
        """Count the request in. Raises ApiError if the model is unknown or its queue is full."""
        self._pool.info(name)
        if samples > self.config.max_samples:
            raise ApiError(400, f"n is {samples}, expected at most {self.config.max_samples}", "invalid_value", "n")
        if self._rows[name] + samples > self.config.max_rows + self.config.queue_rows:
            self.observer.refused(name)
            message = f"too many requests are waiting for model {name}"
            raise ApiError(429, message, "queue_full", retry_after_seconds=RETRY_SECONDS)
        self._rows[name] += samples
