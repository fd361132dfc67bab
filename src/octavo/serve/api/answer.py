"""Answers as they go over the wire: one JSON object, or a stream of them as server-sent events."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping, MutableMapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

T = TypeVar("T")


def as_json(value: Any) -> bytes:
    """UTF-8. Half of a UTF-16 pair, which JSON can say and UTF-8 cannot, stays an escape."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "backslashreplace"
    )


class JsonAnswer(Response):
    """One object."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        return as_json(content)


class EventStream(Response):
    """Server-sent events. When the client leaves, or all is sent, the generator is closed at once."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"}, media_type="text/event-stream"
        )
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()
        if not sending.cancelled() and (error := sending.exception()) is not None and not isinstance(error, OSError):
            raise error

    async def _send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + as_json(value) + b"\n\n"


class ClientLeftError(Exception):
    """Nobody is there to be answered."""


DONE = b"data: [DONE]\n\n"


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves (then raises ClientLeftError)."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
    if working.cancelled():
        raise ClientLeftError
    return working.result()


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
