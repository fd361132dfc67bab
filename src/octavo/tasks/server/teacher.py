"""A teacher that is asked over a connection: many questions at once, each reply written down as soon as it is here.

Each sample is a request of its own, with a seed of its own: not every server knows `n`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, final

from octavo.errors import ConfigError, OctavoError
from octavo.rundir import append_jsonl, read_jsonl
from octavo.tasks.server.config import ServerConfig
from octavo.tasks.server.exchange import Exchange
from octavo.tasks.types import ChatReply, ChatRequest, FinishReason
from octavo.text.tokens import END_THINK, THINK
from octavo.world import derive_seed

_SEEDS = 2**31
_BYTES_PER_TOKEN = 4  # a guess, for servers that do not count
_FINISHED: Mapping[str | None, FinishReason] = {"stop": "stop", "length": "length"}


@final
class ServerTeacher:
    """A `Teacher`. With a `journal`, a file of replies, what was answered before is not asked again."""

    def __init__(self, config: ServerConfig, journal: Path | None = None) -> None:
        config.key()  # a key that is missing is said now
        self._config = config
        self._journal = journal
        rows = [] if journal is None else read_jsonl(journal)
        self._known = {row.pop("request"): ChatReply(**row) for row in rows}

    def answer(self, requests: Sequence[ChatRequest]) -> list[list[ChatReply]]:
        """One list of `samples` replies for each request, in order.

        Raises ConfigError for what the user must mend, TrainingError where the server stays away; the replies that
        came before are in the journal.
        """
        bodies = [[self._body(request, sample) for sample in range(request.samples)] for request in requests]
        missing = {_digest(body): body for group in bodies for body in group if _digest(body) not in self._known}
        if missing:
            try:
                asyncio.run(self._ask(missing))
            except ExceptionGroup as failed:
                error = next((error for error in failed.exceptions if isinstance(error, OctavoError)), None)
                if error is None:
                    raise
                raise self._told(error) from failed
        return [
            [
                reply if sample == 0 else replace(reply, prompt_tokens=0)
                for sample, reply in enumerate(self._known[_digest(body)] for body in group)
            ]
            for group in bodies
        ]

    async def _ask(self, bodies: Mapping[str, dict[str, Any]]) -> None:
        """All at once, as far as the exchange lets them; when one fails for good, the others are given up."""
        async with Exchange(self._config) as exchange, asyncio.TaskGroup() as group:
            for digest, body in bodies.items():
                group.create_task(self._ask_one(exchange, digest, body))

    async def _ask_one(self, exchange: Exchange, digest: str, body: Mapping[str, Any]) -> None:
        reply = _reply(await exchange.ask(body), self._config)
        self._known[digest] = reply
        if self._journal is not None:
            append_jsonl(self._journal, [{"request": digest, **asdict(reply)}])

    def _told(self, error: OctavoError) -> OctavoError:
        """With what is kept, where there is something."""
        if self._journal is None or not self._known:
            return error
        kept = f"{len(self._known):,} replies are kept, and the same command goes on from there"
        return type(error)(f"{error}; {kept}")

    def _body(self, request: ChatRequest, sample: int) -> dict[str, Any]:
        params = request.params
        body = {
            "model": self._config.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": derive_seed(params.seed, sample) % _SEEDS,
            "stop": list(params.stop) or None,
            **self._config.extra,
        }
        return {name: value for name, value in body.items() if value is not None}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _reply(values: Mapping[str, Any], config: ServerConfig) -> ChatReply:
    """Raises ConfigError for an answer that is none."""
    try:
        choice = values["choices"][0]
        message = choice["message"]
        content = _text(message.get("content"))
        reasoning = _text(message.get("reasoning_content") or message.get("reasoning"))
        usage = values.get("usage") or {}
        finish: FinishReason = _FINISHED.get(choice.get("finish_reason"), "cancelled")
        counts = [usage.get(name) for name in ("completion_tokens", "prompt_tokens")]
        tokens, prompt_tokens = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{config.url} does not answer as an OpenAI-compatible server does ({error!r}): expected choices with a "
            "message each"
        ) from error
    text = content
    if reasoning:
        # Cut off inside the reasoning, it is not closed.
        closed = bool(content) or finish != "length"
        text = f"{THINK}{reasoning}{END_THINK if closed else ''}{content}"
    guess = max(1, len(text.encode()) // _BYTES_PER_TOKEN)
    return ChatReply(text, finish, guess if tokens is None else tokens, prompt_tokens or 0)


def _text(content: Any) -> str:
    """Of a string, nothing, or a list of parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return content or ""
