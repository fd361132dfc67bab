"""A reply as the items and events of OpenAI's Responses API."""

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from octavo.serve.api.answer import event
from octavo.serve.calls import Delta, ToolCall, Usage

_PART = {"reasoning": "reasoning_text", "message": "output_text"}


class ResponseWriter:
    """Gathers the response while its events are written."""

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "error": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        self._items: list[dict[str, Any]] = []
        self._open: str | None = None  # type of the item that is being written
        self._reason = ""
        self._usage = Usage()
        self._number = 0

    def response(self) -> dict[str, Any]:
        """What is known so far."""
        status = {"": "in_progress", "length": "incomplete"}.get(self._reason, "completed")
        usage = None
        if self._reason:
            usage = {
                "input_tokens": self._usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": self._usage.cached_tokens},
                "output_tokens": self._usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self._usage.reasoning_tokens},
                "total_tokens": self._usage.prompt_tokens + self._usage.completion_tokens,
            }
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {**self._head, "status": status, "incomplete_details": cut, "output": list(self._items), "usage": usage}

    async def events(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """The whole stream, from response.created to response.completed."""
        yield self._event("response.created", response=self.response())
        yield self._event("response.in_progress", response=self.response())
        async with aclosing(deltas):
            async for delta in deltas:
                for piece in self._delta(delta):
                    yield piece
        for piece in self._close():
            yield piece
        kind = "response.incomplete" if self._reason == "length" else "response.completed"
        yield self._event(kind, response=self.response())

    def _delta(self, delta: Delta) -> Iterator[bytes]:
        if delta.reasoning:
            yield from self._text("reasoning", delta.reasoning)
        if delta.content:
            yield from self._text("message", delta.content)
        for call in delta.tool_calls:
            yield from self._call(call)
        if delta.end is not None:
            self._reason, self._usage = delta.end.finish_reason, delta.end.usage

    def _text(self, kind: str, text: str) -> Iterator[bytes]:
        if self._open != kind:
            yield from self._close()
            self._open = kind
            item: dict[str, Any] = {"id": f"{kind[:3]}_{secrets.token_hex(12)}", "type": kind, "status": "in_progress"}
            item |= {"summary": []} if kind == "reasoning" else {"role": "assistant"}
            self._items.append({**item, "content": []})
            yield self._event("response.output_item.added", item=self._items[-1])
            part: dict[str, Any] = {"type": _PART[kind], "text": ""}
            if kind == "message":
                part |= {"annotations": [], "logprobs": []}
            self._items[-1]["content"].append(part)
            yield self._event("response.content_part.added", item_id=item["id"], content_index=0, part=part)
        item = self._items[-1]
        item["content"][0]["text"] += text
        more = {"logprobs": []} if kind == "message" else {}
        yield self._event(f"response.{_PART[kind]}.delta", item_id=item["id"], content_index=0, delta=text, **more)

    def _close(self) -> Iterator[bytes]:
        """The end of the item that is being written, if one is."""
        if self._open is None:
            return
        kind, self._open = self._open, None
        item = self._items[-1]
        part = item["content"][0]
        more = {"logprobs": []} if kind == "message" else {}
        yield self._event(
            f"response.{_PART[kind]}.done", item_id=item["id"], content_index=0, text=part["text"], **more
        )
        yield self._event("response.content_part.done", item_id=item["id"], content_index=0, part=part)
        item["status"] = "completed"
        yield self._event("response.output_item.done", item=item)

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        yield from self._close()
        item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "in_progress"}
        item |= {"call_id": call.id, "name": call.name, "arguments": ""}
        self._items.append(item)
        yield self._event("response.output_item.added", item=item)
        told = {"item_id": item["id"], "arguments": call.arguments, "name": call.name}
        yield self._event("response.function_call_arguments.delta", item_id=item["id"], delta=call.arguments)
        yield self._event("response.function_call_arguments.done", **told)
        item |= {"arguments": call.arguments, "status": "completed"}
        yield self._event("response.output_item.done", item=item)

    def _event(self, kind: str, **values: Any) -> bytes:
        # Everything about an item says which one it is.
        place = {} if "response" in values else {"output_index": len(self._items) - 1}
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1, **place, **values}, kind)
