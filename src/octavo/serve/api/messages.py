"""Messages and functions as OpenAI's chat API writes them, read into ours."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from octavo.serve.api.fields import Body, Name, Text
from octavo.serve.calls import JsonFormat, Tool, ToolUse
from octavo.serve.errors import ApiError
from octavo.text.messages import Message


class TextPart(Body):
    """The only kind of content that these models read."""

    type: Literal["text", "input_text", "output_text"]
    text: Text


Content = Text | list[TextPart]


class CalledFunction(Body):
    """What an assistant called in an earlier turn."""

    name: Name
    arguments: Text
    """JSON."""


class EarlierCall(Body):
    """A call in an earlier turn."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class SpokenMessage(Body):
    """What the developer or the user said."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: str | None = None

    def read(self) -> Message:
        return Message("user" if self.role == "user" else "system", joined(self.content))


class AssistantMessage(Body):
    """What the assistant said in an earlier turn."""

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: Text | None = None
    tool_calls: list[EarlierCall] | None = None

    def read(self) -> Message:
        calls = tuple(read_call(call.function.name, call.function.arguments) for call in self.tool_calls or ())
        return Message("assistant", joined(self.content or ""), self.reasoning_content, calls)


class ToolMessage(Body):
    """What a function returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str | None = None

    def read(self) -> Message:
        return Message("tool", joined(self.content))


AnyMessage = Annotated[SpokenMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(Body):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments."""
    strict: bool | None = None

    def read(self) -> Tool:
        return Tool(self.name, self.description or "", self.parameters or {}, bool(self.strict))


class FunctionTool(Body):
    """The only kind of tool there is here."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Body):
    """A function by name."""

    name: Name


class NamedTool(Body):
    """This one must be called."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class SchemaFormat(Body):
    """The schema of an answer."""

    name: Name
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextFormat(Body):
    """No format."""

    type: Literal["text"]


class ObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


ResponseFormat = Annotated[TextFormat | ObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


def read_format(given: TextFormat | ObjectFormat | JsonSchemaFormat | None) -> JsonFormat | None:
    """What the answer must look like."""
    if isinstance(given, JsonSchemaFormat):
        return JsonFormat(given.json_schema.schema_ or {}, bool(given.json_schema.strict))
    return JsonFormat({"type": "object"}) if isinstance(given, ObjectFormat) else None


def read_tools(tools: list[Tool], choice: str | None, named: str | None, parallel: bool | None) -> ToolUse:
    """Raises ApiError for a choice among functions that are not there."""
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise ApiError(400, "tools: two functions have the same name", "invalid_value", "tools")
    if named is not None and named not in names:
        message = f"tool_choice: no function {named!r} among the tools"
        raise ApiError(400, message, "invalid_value", "tool_choice")
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice is required, but there are no tools", "invalid_value", "tool_choice")
    if choice == "none" or not tools:
        return ToolUse()
    return ToolUse(tuple(tools), choice == "required", named, parallel is not False)


def read_call(name: str, arguments: str) -> dict[str, Any]:
    """A call of an earlier turn, as chat templates read it. Raises ApiError."""
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        message = f"the arguments of a call of {name!r} are not JSON"
        raise ApiError(400, message, "invalid_value", "messages") from error
    return {"type": "function", "function": {"name": name, "arguments": read}}


def joined(content: str | list[TextPart]) -> str:
    """The text of a message."""
    return content if isinstance(content, str) else "".join(part.text for part in content)
