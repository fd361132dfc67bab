"""What several requests have in common: how to draw, what to write, whom to tell."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from octavo.errors import OctavoError
from octavo.serve.api.answer import DONE, event
from octavo.serve.calls import Delta, Sampling, Token, Usage
from octavo.serve.errors import ApiError, api_error

log = logging.getLogger(__name__)
MOST_ALTERNATIVES = 20
_LARGEST = 2**31 - 1

Text = Annotated[str, Field(max_length=4_000_000)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Count = Annotated[int, Field(ge=1, le=_LARGEST)]


class Body(BaseModel):
    """Types are exact (no "8" for 8), numbers finite; what is not known is passed over, as OpenAI's clients expect."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class StreamOptions(Body):
    """What a stream tells beside the text."""

    include_usage: bool | None = None


class Drawing(Body):
    """How replies are drawn."""

    model: Name
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=_LARGEST)
    """0: all. Not of OpenAI's API."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: int | None = Field(default=None, ge=1, le=1024)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """0: others are not supported."""
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    """0: others are not supported."""
    logit_bias: dict[str, float] | None = None
    """Empty: others are not supported."""

    def sampling(self, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
        """Raises ApiError for what this server does not do."""
        for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
            if getattr(self, name):
                raise ApiError(400, f"{name} is not supported by this server: leave it out", "unsupported", name)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            # The likeliest token is always in the nucleus.
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
            top_k=self.top_k or 0,
            max_tokens=max_tokens,
            stop=stop,
            seed=self.seed,
            samples=self.n or 1,
            top_logprobs=top_logprobs,
        )

    @property
    def wants_usage(self) -> bool:
        """Whether the stream shall end with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def head(kind: Literal["chat.completion", "chat.completion.chunk", "text_completion"], model: str) -> dict[str, Any]:
    """What every answer, and every piece of one, begins with."""
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def usage_of(usage: Usage) -> dict[str, Any]:
    """As OpenAI counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def token_of(token: Token) -> dict[str, Any]:
    """A token with its alternatives, as chat answers tell it."""
    alternatives = [_token(value, logprob) for value, logprob in token.top]
    return {**_token(token.bytes, token.logprob), "top_logprobs": alternatives}


def shown(value: bytes) -> str:
    """The text of a token; part of a character is U+FFFD."""
    return value.decode("utf-8", "replace")


async def with_first(first: Delta, rest: AsyncIterator[Delta]) -> AsyncGenerator[Delta, None]:
    """A stream whose first piece was waited for, so that what is wrong with a request is known before it begins."""
    yield first
    async for delta in rest:
        yield delta


async def closing_events(pieces: AsyncGenerator[bytes, None], done: bool = True) -> AsyncGenerator[bytes, None]:
    """The events of a stream; an error in its midst is its last event. `done`: [DONE] stands at the end."""
    try:
        async for piece in pieces:
            yield piece
    except Exception as error:
        if not isinstance(error, OctavoError):
            log.exception("a stream broke off")
        yield event(api_error(error).body())
    finally:
        await pieces.aclose()
    if done:
        yield DONE


def _token(value: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(value), "logprob": max(logprob, -9999.0), "bytes": list(value)}
