"""POST /v1/responses: OpenAI's newer API, as far as a server that remembers nothing can have it.

Nothing is stored: the whole conversation comes with each request, as the items that were answered before.
"""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from octavo.serve.api.answer import EventStream, JsonAnswer, while_connected
from octavo.serve.api.chat import Effort, thinks
from octavo.serve.api.fields import Body, Count, Name, Text, closing_events, with_first
from octavo.serve.api.messages import Content, joined, read_call, read_tools
from octavo.serve.api.response_stream import ResponseWriter
from octavo.serve.calls import ChatCall, Delta, JsonFormat, Sampling, Tool
from octavo.serve.errors import ApiError
from octavo.serve.service import Service
from octavo.text.messages import Message


class MessageItem(Body):
    """What somebody said."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class CallItem(Body):
    """A function that the model called."""

    type: Literal["function_call"]
    call_id: str
    name: Name
    arguments: Text


class OutputItem(Body):
    """What the function returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content


class ReasoningItem(Body):
    """How the model reasoned; not shown to it again."""

    type: Literal["reasoning"]


Item = CallItem | OutputItem | ReasoningItem | MessageItem


class FunctionItem(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Body):
    """This one must be called."""

    type: Literal["function"]
    name: Name


class Reasoning(Body):
    """How much to reason."""

    effort: Effort | None = None


class FormatText(Body):
    """No format."""

    type: Literal["text"]


class FormatObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class FormatSchema(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """What the answer must look like."""

    format: Annotated[FormatText | FormatObject | FormatSchema, Field(discriminator="type")] | None = None


class ResponseBody(Body):
    """A conversation to be gone on with."""

    model: Name
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=4096)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    text: TextOptions | None = None
    tools: list[FunctionItem] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    store: bool | None = None
    """Nothing is stored, whatever this says."""
    previous_response_id: str | None = None
    """Not supported: nothing is stored."""

    def call(self) -> ChatCall:
        """Raises ApiError."""
        if self.previous_response_id is not None:
            message = "this server stores no conversations: send the earlier items as input"
            raise ApiError(400, message, "unsupported", "previous_response_id")
        items = [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        messages = [] if self.instructions is None else [Message("system", self.instructions)]
        for item in items:
            if not isinstance(item, ReasoningItem):
                _add(messages, item)
        choice, effort = self.tool_choice, self.reasoning.effort if self.reasoning else None
        named = choice.name if isinstance(choice, NamedFunction) else None
        functions = [
            Tool(tool.name, tool.description or "", tool.parameters or {}, bool(tool.strict))
            for tool in self.tools or ()
        ]
        return ChatCall(
            model=self.model,
            messages=tuple(messages),
            sampling=Sampling(
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
                max_tokens=self.max_output_tokens,
            ),
            thinking=thinks(effort),
            reasoning_effort=effort,
            tool_use=read_tools(functions, None if named else str(choice or "auto"), named, self.parallel_tool_calls),
            json_format=self._format(),
        )

    def _format(self) -> JsonFormat | None:
        given = self.text.format if self.text else None
        if isinstance(given, FormatSchema):
            return JsonFormat(given.schema_, bool(given.strict))
        return JsonFormat({"type": "object"}) if isinstance(given, FormatObject) else None


def _add(messages: list[Message], item: MessageItem | CallItem | OutputItem) -> None:
    """Read an item; calls in a row are one turn of the assistant."""
    if isinstance(item, OutputItem):
        messages.append(Message("tool", joined(item.output)))
    elif isinstance(item, CallItem):
        call = read_call(item.name, item.arguments)
        if messages and messages[-1].role == "assistant":
            last = messages.pop()
            messages.append(Message("assistant", last.content, None, (*last.tool_calls, call)))
        else:
            messages.append(Message("assistant", "", None, (call,)))
    else:
        role = "system" if item.role == "developer" else item.role
        messages.append(Message(role, joined(item.content)))


def routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.post("/v1/responses", tags=["responses"])
    async def responses(body: ResponseBody, request: Request) -> Response:
        """The next turn of a conversation."""
        deltas = service.chat(body.call())
        writer = ResponseWriter(body.model)
        if not body.stream:
            return JsonAnswer(await while_connected(request, _whole(writer, deltas)))
        first = await while_connected(request, anext(deltas))
        return EventStream(closing_events(writer.events(with_first(first, deltas)), done=False))

    return router


async def _whole(writer: ResponseWriter, deltas: AsyncGenerator[Delta, None]) -> dict[str, Any]:
    async for _ in writer.events(deltas):
        pass
    return writer.response()
