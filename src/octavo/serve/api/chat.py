"""POST /v1/chat/completions."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from octavo.serve.api.answer import EventStream, JsonAnswer, event, while_connected
from octavo.serve.api.fields import (
    MOST_ALTERNATIVES,
    Body,
    Count,
    Drawing,
    closing_events,
    head,
    token_of,
    usage_of,
    with_first,
)
from octavo.serve.api.messages import (
    AnyMessage,
    FunctionTool,
    NamedTool,
    ResponseFormat,
    ToolChoice,
    read_format,
    read_tools,
)
from octavo.serve.calls import ChatCall, Delta, ToolCall, Usage
from octavo.serve.errors import ApiError
from octavo.serve.service import Service

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TemplateOptions(Body):
    """As vLLM and others name what a chat template is told."""

    enable_thinking: bool | None = None


class ChatBody(Drawing):
    """A conversation to be gone on with."""

    messages: list[AnyMessage] = Field(min_length=1, max_length=4096)
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    """The newer name of max_tokens; goes before it."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    response_format: ResponseFormat | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    """none and minimal: do not reason, where the model can do without."""
    enable_thinking: bool | None = None
    """Whether to reason, for models that can do both. Not of OpenAI's API."""
    chat_template_kwargs: TemplateOptions | None = None

    def call(self) -> ChatCall:
        """Raises ApiError."""
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", "invalid_value", "top_logprobs")
        choice = self.tool_choice
        named = choice.function.name if isinstance(choice, NamedTool) else None
        functions = [tool.function.read() for tool in self.tools or ()]
        thinking = self.enable_thinking
        if thinking is None and self.chat_template_kwargs is not None:
            thinking = self.chat_template_kwargs.enable_thinking
        top_logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return ChatCall(
            model=self.model,
            messages=tuple(message.read() for message in self.messages),
            sampling=self.sampling(self.max_completion_tokens or self.max_tokens, top_logprobs),
            thinking=thinks(self.reasoning_effort) if thinking is None else thinking,
            reasoning_effort=self.reasoning_effort,
            tool_use=read_tools(functions, None if named else str(choice or "auto"), named, self.parallel_tool_calls),
            json_format=read_format(self.response_format),
        )


def thinks(effort: str | None) -> bool | None:
    """Whether an effort means to reason at all; None: as the model's authors chose."""
    return None if effort is None else effort not in ("none", "minimal")


def routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.post("/v1/chat/completions", tags=["chat"])
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """The next turn of a conversation."""
        deltas = service.chat(body.call())
        if not body.stream:
            return JsonAnswer(await while_connected(request, _whole(body, deltas)))
        first = await while_connected(request, anext(deltas))
        return EventStream(closing_events(_chunks(body, with_first(first, deltas))))

    return router


async def _whole(body: ChatBody, deltas: AsyncGenerator[Delta, None]) -> dict[str, Any]:
    choices = [_Choice() for _ in range(body.n or 1)]
    usage = Usage()
    async with aclosing(deltas):
        async for delta in deltas:
            choices[delta.index].add(delta)
            if delta.end is not None:
                usage = usage.with_sample(delta.end.usage)
    told = [choice.as_dict(index, bool(body.logprobs)) for index, choice in enumerate(choices)]
    return {**head("chat.completion", body.model), "choices": told, "usage": usage_of(usage)}


class _Choice:
    """One sample, gathered."""

    def __init__(self) -> None:
        self.reasoning = self.content = self.finish_reason = ""
        self.calls: list[ToolCall] = []
        self.tokens: list[dict[str, Any]] = []

    def add(self, delta: Delta) -> None:
        self.reasoning += delta.reasoning
        self.content += delta.content
        self.calls += delta.tool_calls
        self.tokens += map(token_of, delta.tokens)
        if delta.end is not None:
            self.finish_reason = delta.end.finish_reason

    def as_dict(self, index: int, logprobs: bool) -> dict[str, Any]:
        content = None if self.calls and not self.content.strip() else self.content
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = list(_calls(self.calls))
        told = {"content": self.tokens, "refusal": None} if logprobs else None
        return {"index": index, "message": message, "logprobs": told, "finish_reason": self.finish_reason}


async def _chunks(body: ChatBody, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
    begin = head("chat.completion.chunk", body.model)
    usage, called = Usage(), [0] * (body.n or 1)

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, tokens: Any = None) -> bytes:
        told = {"content": tokens, "refusal": None} if tokens else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}
        # With include_usage, every chunk has the field, and the last one the numbers.
        return event({**begin, "choices": [choice], **({"usage": None} if body.wants_usage else {})})

    async with aclosing(deltas):
        for index in range(body.n or 1):
            yield chunk(index, {"role": "assistant", "content": ""})
        async for delta in deltas:
            index, piece = delta.index, {}
            if delta.reasoning:
                piece["reasoning_content"] = delta.reasoning
            if delta.content or delta.tokens:
                piece["content"] = delta.content
            if delta.tool_calls:
                piece["tool_calls"] = list(_calls(delta.tool_calls, called[index]))
                called[index] += len(delta.tool_calls)
            if piece:
                yield chunk(index, piece, tokens=[token_of(token) for token in delta.tokens])
            if delta.end is not None:
                usage = usage.with_sample(delta.end.usage)
                yield chunk(index, {}, delta.end.finish_reason)
    if body.wants_usage:
        yield event({**begin, "choices": [], "usage": usage_of(usage)})


def _calls(calls: Iterable[ToolCall], first: int | None = None) -> Iterable[dict[str, Any]]:
    """As OpenAI writes them; in a stream each has its number, from `first` on."""
    for number, call in enumerate(calls):
        place = {} if first is None else {"index": first + number}
        yield {**place, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
