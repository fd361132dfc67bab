"""Who may come in: the size and pace of a request, the name it calls the server by, the page it comes from, its key.

Pure ASGI, around the whole application, so that pages are guarded as the API is.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import platform
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse

from octavo.serve.api.answer import JsonAnswer
from octavo.serve.config import ServeConfig
from octavo.serve.errors import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "octavo_session"
_OPEN_PATHS = ("/health", "/login")


class Guard:
    """Refuses with an error in OpenAI's shape; a browser that lacks the key is sent to /login."""

    def __init__(self, app: Application, config: ServeConfig) -> None:
        self._app = app
        self._config = config
        own = {"localhost", platform.node().lower(), config.host.lower()}
        self._hosts = {*own, *(host.lower() for host in config.hosts)} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_host(headers)
            self._check_origin(headers)
            if scope["path"] not in _OPEN_PATHS and not self._has_key(headers):
                if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                    to_login = RedirectResponse(f"/login?next={quote(scope['path'])}", 303)
                    await to_login(scope, receive, send)
                    return
                raise ApiError(401, "a valid API key is needed: Authorization: Bearer KEY", "invalid_api_key")
            if scope["type"] == "http":
                receive = await self._read_body(headers, receive)
        except ApiError as error:
            await JsonAnswer(error.body(), error.status, error.headers())(scope, receive, send)
            return
        except _GoneError:
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """A name of somebody else that leads here is how a web page reaches servers of this machine (DNS rebinding)."""
        name = _host_name(headers.get("host", ""))
        if name not in self._hosts and not name.endswith(".localhost") and not _is_address(name):
            message = f"this server is not called {name[:100]!r} (octavo serve --allow-host)"
            raise ApiError(421, message, "wrong_host")

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._config.origins:
            return
        try:
            same = urlsplit(origin).netloc == headers.get("host")
        except ValueError:
            same = False
        if not same:
            message = f"web pages of {origin[:100]!r} may not use this server (octavo serve --allow-origin)"
            raise ApiError(403, message, "wrong_origin")

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        key = self._config.api_key
        if key is None:
            return True
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same_secret(shown.strip(), key):
            return True
        cookies = [cookie.strip().partition("=") for cookie in headers.get("cookie", "").split(";")]
        return any(name == COOKIE and same_secret(value, session_of(key)) for name, _, value in cookies)

    async def _read_body(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """The whole body, within size and time; afterwards, only that the client leaves is to be heard."""
        most = self._config.max_body_bytes
        too_large = ApiError(413, f"the request is larger than {most} bytes", "request_too_large")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise ApiError(408, "the request did not arrive in time", "slow_request") from None
        pending = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        return replay


class _GoneError(Exception):
    """The client left before it had said what it wants."""


def session_of(key: str) -> str:
    """What the cookie of a browser holds that has shown the key."""
    return hmac.new(key.encode(), b"octavo session", hashlib.sha256).hexdigest()


def same_secret(left: str, right: str) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape"))


def _host_name(header: str) -> str:
    """The Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
