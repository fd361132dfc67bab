"""One question and one answer: the only code beside pull/ that opens a connection, and only to the address it is given.

Failures are of three kinds: what the user must mend (ConfigError, at once), what passes (tried again, later each time),
and a server that stays away (TrainingError: all that came before is kept by the caller, and the stage can go on).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from octavo import __version__
from octavo.errors import ConfigError, TrainingError
from octavo.tasks.server.config import ServerConfig

_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_CONNECT_SECONDS = 10.0
_TRIES_BEFORE_FIRST_ANSWER = 2
_MOST_BYTES = 16 << 20
_MOST_SAID = 200


class _Passing(Exception):  # noqa: N818 (it is not an error yet)
    """Worth another try, after `wait_seconds` if the server said how long."""

    def __init__(self, reason: str, wait_seconds: float | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.connected = connected


class Exchange:
    """A client of one server; as many questions as the config says are under way at once."""

    def __init__(self, config: ServerConfig) -> None:
        import httpx2

        self._config = config
        self._key = config.key()
        self._answered = False
        self._free = asyncio.Semaphore(config.parallel)
        self._errors = httpx2
        headers = {"User-Agent": f"octavo/{__version__}", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(config.timeout_seconds, connect=min(_CONNECT_SECONDS, config.timeout_seconds)),
            trust_env=False,  # neither proxies nor a .netrc: the given host alone is told anything
        )
        self._address = f"{config.url.rstrip('/')}/chat/completions"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a request. Raises ConfigError, TrainingError."""
        async with self._free:
            failures = 0
            while True:
                try:
                    return await self._ask_once(body)
                except _Passing as failure:
                    failures += 1
                    await asyncio.sleep(self._pause_seconds(failure, failures))

    def _pause_seconds(self, failure: _Passing, failures: int) -> float:
        """Before the next try. Raises where there shall be none."""
        config, url, asked_for = self._config, self._config.url, failure.wait_seconds or 0.0
        if not failure.connected and not self._answered and failures >= _TRIES_BEFORE_FIRST_ANSWER:
            raise ConfigError(f"no server answers at {url} ({failure}): is it running, and is the address right?")
        if failures >= config.tries:
            raise TrainingError(f"{url}: {failure}, {failures} times in a row")
        if asked_for > config.longest_wait_seconds:
            raise TrainingError(f"{url}: {failure}, and asks to wait for {asked_for:,.0f} seconds")
        return max(asked_for, min(2.0 ** (failures - 1), config.longest_wait_seconds))

    async def _ask_once(self, body: Mapping[str, Any]) -> dict[str, Any]:
        errors = self._errors
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                async with self._client.stream("POST", self._address, json=body) as response:
                    data = await self._receive(response.aiter_bytes())
                    status, headers = response.status_code, response.headers
        except (errors.ConnectError, errors.ConnectTimeout) as error:
            raise _Passing(self._shown(str(error)) or type(error).__name__, connected=False) from error
        except (TimeoutError, errors.TimeoutException) as error:
            raise _Passing(f"no answer within {self._config.timeout_seconds:g} seconds") from error
        except errors.HTTPError as error:
            raise _Passing(f"the connection broke off ({self._shown(str(error)) or type(error).__name__})") from error
        if 200 <= status < 300:
            values = _json(data)
            if not isinstance(values, dict):
                raise _Passing("the answer is no JSON object, as an OpenAI-compatible server gives it")
            self._answered = True
            return values
        raise self._refusal(status, headers, self._said(data))

    async def _receive(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The body, unless it is huge."""
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > _MOST_BYTES:
                raise ConfigError(f"{self._config.url}: an answer of more than {_MOST_BYTES:,} bytes; is this a model?")
        return bytes(data)

    def _refusal(self, status: int, headers: Mapping[str, str], said: str) -> Exception:
        config = self._config
        if status in _PASSING:
            return _Passing(f"the server is busy or failing (status {status}{said})", _retry_after(headers))
        if 300 <= status < 400:
            return ConfigError(f"{config.url} redirects elsewhere, and that is not followed: give the final address")
        if status in (401, 403):
            key = f"the key in {config.key_env}" if config.key_env else "a request without a key (set key_env)"
            return ConfigError(f"{config.url} refuses {key} (status {status})")
        if status == 404:
            return ConfigError(
                f"{config.url} has no model {config.model!r}, or no /chat/completions (status 404{said}); an address "
                "often ends in /v1"
            )
        return ConfigError(f"{config.url} refuses the request (status {status}{said})")

    def _said(self, data: bytes) -> str:
        """What the server says of an error, for a message in one line."""
        values = _json(data)
        error = values.get("error", values) if isinstance(values, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        return f": {self._shown(said)}" if isinstance(said, str) else ""

    def _shown(self, text: str) -> str:
        """Printable, short, and without the key."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        line = " ".join(text.split())
        return (line if line.isprintable() else ascii(line)[1:-1])[:_MOST_SAID]


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date."""
    text = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
