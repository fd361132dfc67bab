"""POST /v1/completions: plain text goes on; with `echo`, the prompt is told too, token by token."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from octavo.serve.api.answer import EventStream, JsonAnswer, event, while_connected
from octavo.serve.api.fields import (
    MOST_ALTERNATIVES,
    Drawing,
    Text,
    closing_events,
    head,
    shown,
    usage_of,
    with_first,
)
from octavo.serve.calls import Delta, TextCall, Token, Usage
from octavo.serve.errors import ApiError
from octavo.serve.service import Service

_MOST_PROMPTS = 128
_DEFAULT_TOKENS = 16  # OpenAI's

Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=1_000_000)]


class CompletionBody(Drawing):
    """Text to be gone on with."""

    prompt: Text | Ids | Annotated[list[Text] | list[Ids], Field(min_length=1, max_length=_MOST_PROMPTS)]
    max_tokens: int | None = Field(default=None, ge=0, lt=2**31)
    """0 only with echo: nothing is written."""
    logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    echo: bool | None = None

    def calls(self) -> list[TextCall]:
        """One for each prompt. Raises ApiError."""
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens: should be at least 1 without echo", "invalid_value", "max_tokens")
        if self.echo and self.stream:
            raise ApiError(400, "echo is not for streams", "unsupported", "echo")
        tokens = _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens
        sampling = self.sampling(tokens, self.logprobs)
        return [TextCall(self.model, prompt, sampling) for prompt in self._prompts()]

    def _prompts(self) -> list[str | tuple[int, ...]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(id_ for id_ in self.prompt if isinstance(id_, int))]
        return [
            prompt if isinstance(prompt, str) else tuple(prompt)
            for prompt in self.prompt
            if not isinstance(prompt, int)
        ]


def routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.post("/v1/completions", tags=["completions"])
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Go on with a text."""
        calls = body.calls()
        if not body.stream:
            return JsonAnswer(await while_connected(request, _whole(service, body, calls)))
        deltas = _in_turn(service, calls)
        first = await while_connected(request, anext(deltas))
        return EventStream(closing_events(_chunks(body, with_first(first, deltas))))

    return router


class _Choice:
    """One sample, gathered."""

    def __init__(self, text: str = "", tokens: Iterable[Token] = ()) -> None:
        self.text, self.tokens, self.finish_reason = text, list(tokens), "length"

    def add(self, delta: Delta) -> None:
        self.text += delta.content
        self.tokens += delta.tokens
        if delta.end is not None:
            self.finish_reason = delta.end.finish_reason

    def as_dict(self, index: int, logprobs: bool) -> dict[str, Any]:
        told = _logprobs(self.tokens) if logprobs else None
        return {"index": index, "text": self.text, "logprobs": told, "finish_reason": self.finish_reason}


async def _whole(service: Service, body: CompletionBody, calls: list[TextCall]) -> dict[str, Any]:
    tasks = [asyncio.create_task(_complete(service, body, call)) for call in calls]
    try:
        done = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    choices = [choice for choices, _ in done for choice in choices]
    told = [choice.as_dict(index, body.logprobs is not None) for index, choice in enumerate(choices)]
    usage = Usage(
        sum(usage.prompt_tokens for _, usage in done),
        sum(usage.completion_tokens for _, usage in done),
        0,
        sum(usage.cached_tokens for _, usage in done),
    )
    return {**head("text_completion", body.model), "choices": told, "usage": usage_of(usage)}


async def _complete(service: Service, body: CompletionBody, call: TextCall) -> tuple[list[_Choice], Usage]:
    samples, usage = body.n or 1, Usage()
    choices = [_Choice() for _ in range(samples)]
    if body.echo:
        scored = await service.score(call.model, call.prompt, body.logprobs or 0)
        usage = Usage(len(scored.tokens))
        choices = [_Choice(scored.text, scored.tokens) for _ in range(samples)]
    if call.sampling.max_tokens:
        async with aclosing(service.text(call)) as deltas:
            async for delta in deltas:
                choices[delta.index].add(delta)
                if delta.end is not None:
                    usage = usage.with_sample(delta.end.usage)
    return choices, usage


async def _in_turn(service: Service, calls: list[TextCall]) -> AsyncGenerator[Delta, None]:
    """The streams of all prompts, one after the other, samples numbered through."""
    for number, call in enumerate(calls):
        async with aclosing(service.text(call)) as deltas:
            async for delta in deltas:
                yield Delta(
                    number * call.sampling.samples + delta.index,
                    content=delta.content,
                    tokens=delta.tokens,
                    end=delta.end,
                )


async def _chunks(body: CompletionBody, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
    begin = head("text_completion", body.model)
    ends: list[Usage] = []
    async with aclosing(deltas):
        async for delta in deltas:
            reason = None if delta.end is None else delta.end.finish_reason
            if delta.end is not None:
                ends.append(delta.end.usage)
            told = _logprobs(delta.tokens) if body.logprobs is not None else None
            choice = {"index": delta.index, "text": delta.content, "logprobs": told, "finish_reason": reason}
            yield event({**begin, "choices": [choice], **({"usage": None} if body.wants_usage else {})})
    if body.wants_usage:
        samples = body.n or 1
        usage = Usage(
            sum(usage.prompt_tokens for usage in ends) // samples,
            sum(usage.completion_tokens for usage in ends),
            0,
            sum(usage.cached_tokens for usage in ends) // samples,
        )
        yield event({**begin, "choices": [], "usage": usage_of(usage)})


def _logprobs(tokens: Iterable[Token]) -> dict[str, Any]:
    """As this older API tells them; the first token of an echoed prompt has none."""
    texts, logprobs, tops, offsets, offset = [], [], [], [], 0
    for token in tokens:
        text = shown(token.bytes)
        texts.append(text)
        offsets.append(offset)
        offset += len(text)
        if math.isnan(token.logprob):
            logprobs.append(None)
            tops.append(None)
        else:
            logprobs.append(max(token.logprob, -9999.0))
            tops.append({shown(value): max(logprob, -9999.0) for value, logprob in token.top})
    return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}
