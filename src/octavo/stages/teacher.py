"""A model of this machine as a teacher."""

from collections.abc import Sequence
from typing import final

from octavo.tasks.types import ChatReply, ChatRequest, Completer, CompletionRequest
from octavo.text.template import encode_prompt
from octavo.text.tokenizer import Tokenizer


@final
class ModelTeacher:
    """A `Teacher` over an engine."""

    def __init__(self, completer: Completer, tokenizer: Tokenizer) -> None:
        self._completer, self._tokenizer = completer, tokenizer

    def answer(self, requests: Sequence[ChatRequest]) -> list[list[ChatReply]]:
        asked = [
            CompletionRequest(tuple(encode_prompt(self._tokenizer, request.messages)), request.params, request.samples)
            for request in requests
        ]
        return [
            [
                ChatReply(
                    completion.text,
                    completion.finish_reason,
                    len(completion.ids),
                    0 if place else len(completion.prompt_ids),
                )
                for place, completion in enumerate(completions)
            ]
            for completions in self._completer.complete(asked)
        ]
