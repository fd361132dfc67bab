"""Where a server is, and how it is asked."""

import os
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from octavo.config import Config
from octavo.errors import ConfigError

_FIXED = frozenset(("messages", "model", "n", "stream"))


class ServerConfig(Config):
    """A server that speaks OpenAI's chat completions. Questions are sent to it, and to nobody else."""

    url: str
    """Address below which `/chat/completions` lies, as http://localhost:8000/v1. No redirect is followed, no proxy
    used."""
    model: str
    """What the server calls the model."""
    key_env: str | None = None
    """Name of the environment variable that holds the key. The key itself is written nowhere."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request; null takes one out: {max_tokens: null, max_completion_tokens: 512}."""
    parallel: int = Field(default=4, gt=0)
    """Requests under way at once."""
    timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest time that a reply may take."""
    tries: int = Field(default=8, gt=0)
    """A request is given up after so many failures in a row; between them lie 1, 2, 4, ... seconds, or as many as the
    server asks for."""
    longest_wait_seconds: float = Field(default=60.0, gt=0)
    """The longest of these pauses; a server that asks for a longer one ends the stage, which can go on later."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: expected an address as http://localhost:8000/v1, got {parts.geturl()[:60]!r}")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "url: expected an address without name, password, ? and #; put a key into an environment variable, and "
                "name that in key_env"
            )
        if fixed := _FIXED & self.extra.keys():
            raise ValueError(f"extra: {', '.join(sorted(fixed))} may not be set: replies are read whole, one a request")
        return self

    def decisive(self) -> dict[str, Any]:
        """What decides the answers: not how patiently they are waited for."""
        return self.model_dump(mode="json", include={"url", "model", "extra"})

    def key(self) -> str | None:
        """The key. Raises ConfigError where the variable is not set."""
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigError(f"teacher.key_env: the environment variable {self.key_env} is not set")
        return key
