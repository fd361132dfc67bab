"""Function calls: how they are shown to a model, what it may write, and how they are read.

Models write `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen and others). Chat templates that
know of it are given the functions; for all others they are told in the system message, in the same words.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octavo.serve.calls import Tool, ToolCall, ToolUse
from octavo.serve.guide import schema_text
from octavo.serve.loaded import Loaded, single_token
from octavo.text.messages import Message

OPENING, CLOSING = "<tool_call>", "</tool_call>"
_ANYTHING = {"type": "object"}


def knows_tools(loaded: Loaded) -> bool:
    """Whether the chat template shows functions to the model, in the format that is read here."""
    template = loaded.tokenizer.files.templates.get("default", "")
    return OPENING in template and "tools" in template


def as_schemas(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Functions as chat templates read them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def told_in_words(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The conversation for templates that know nothing of functions: all in system, user and assistant messages."""
    plain = [_plain(message) for message in messages]
    if not tools:
        return tuple(plain)
    functions = "\n".join(json.dumps(schema["function"], ensure_ascii=False) for schema in as_schemas(tools))
    form = f'{OPENING}\n{{"name": NAME, "arguments": {{...}}}}\n{CLOSING}'
    told = f"You can call these functions:\n{functions}\nTo call one, write\n{form}"
    if plain and plain[0].role == "system":
        return (Message("system", f"{plain[0].content}\n\n{told}"), *plain[1:])
    return (Message("system", told), *plain)


def tool_grammar(loaded: Loaded, use: ToolUse, answer: str | None = None) -> str:
    """What may be written: text with calls in it, or, if a call is required, nothing but calls. Raises ApiError.

    `answer`: the rule of an answer that stands in the place of calls, instead of any text.
    """
    tools = [tool for tool in use.tools if use.only in (None, tool.name)]
    special = single_token(loaded.tokenizer, OPENING) is not None
    calls = []
    for number, tool in enumerate(tools):
        schema = schema_text(tool.parameters or _ANYTHING, tool.strict, f"tools[{number}].function.parameters")
        name = json.dumps(json.dumps(tool.name))
        calls.append(f'"{{\\"name\\": " {name} ", \\"arguments\\": " %json {schema} "}}"')
    closing = CLOSING if single_token(loaded.tokenizer, CLOSING) is not None else f'"{CLOSING}"'
    rules = [f'body: "\\n" call "\\n" {closing}', "call: " + "\n  | ".join(calls)]
    opening = OPENING if special else f'"{OPENING}"'
    required = use.required or use.only is not None
    if required or answer is not None:
        more = f'("\\n" {opening} body)*' if use.parallel and use.only is None else ""
        instead = "" if required else f"| {answer}"
        rules.insert(0, f"start: {opening} body {more} {instead}")
    else:
        rules.insert(0, f"start: {'begun*' if use.parallel else 'begun?'} TEXT")
        rules.append("TEXT: /(.|\\n)*/")
        if special:
            rules.append(f"begun: TEXT {OPENING} body")
        else:
            rules += ["begun: trigger body", f'trigger[lazy]: TEXT "{OPENING}"']
    return "\n".join(rules)


class ToolReader:
    """Takes function calls out of streamed text."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False

    def feed(self, text: str) -> Iterator[str | ToolCall]:
        """Yield text, and calls once they are complete."""
        self._held += text
        while True:
            tag = CLOSING if self._inside else OPENING
            before, found, rest = self._held.partition(tag)
            if not found:
                break
            self._held = rest
            if self._inside:
                yield _read(before) or f"{OPENING}{before}{CLOSING}"
            elif before.strip():
                yield before
            self._inside = not self._inside
        if not self._inside and (certain := len(self._held) - _begun(self._held)):
            yield self._held[:certain]
            self._held = self._held[certain:]

    def flush(self) -> Iterator[str]:
        """Yield what was held back: the beginning of a call that was cut off."""
        if self._held or self._inside:
            yield (OPENING if self._inside else "") + self._held
        self._held, self._inside = "", False


def _read(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
        return ToolCall(
            f"call_{secrets.token_hex(12)}",
            str(call["name"]),
            json.dumps(call.get("arguments", {}), ensure_ascii=False),
        )
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _begun(text: str) -> int:
    """Length of the longest end of the text that begins the opening tag."""
    lengths = range(min(len(text), len(OPENING) - 1), 0, -1)
    return next((length for length in lengths if OPENING.startswith(text[-length:])), 0)


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if message.tool_calls:
        calls = [f"{OPENING}\n{_written(call)}\n{CLOSING}" for call in message.tool_calls]
        return Message("assistant", "\n".join(filter(None, [message.content, *calls])), message.reasoning)
    return message


def _written(call: Mapping[str, Any]) -> str:
    function = call["function"]
    return json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
