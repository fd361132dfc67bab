"""Requests that cannot be served are refused in one line, before any work."""

import math

from octavo.errors import RequestError
from octavo.tasks.types import CompletionRequest


def check_request(request: CompletionRequest, vocabulary: int, max_tokens: int) -> None:
    """Raise RequestError unless the request can be drawn; `max_tokens` bounds prompt and completion together."""
    prompt, params = request.prompt_ids, request.params
    if not prompt:
        raise RequestError("the prompt is empty: give at least one token")
    if len(prompt) >= max_tokens:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens, expected at most {max_tokens - 1} "
            f"(the context is {max_tokens} tokens and one is to be drawn): shorten it"
        )
    if min(prompt) < 0 or max(prompt) >= vocabulary:
        wrong = next(token for token in prompt if not 0 <= token < vocabulary)
        raise RequestError(
            f"the prompt holds token id {wrong}, expected 0 to {vocabulary - 1}: encode it with the model's tokenizer"
        )
    if request.samples < 1:
        raise RequestError(f"samples is {request.samples}, expected at least 1")
    if params.max_tokens < 1:
        raise RequestError(f"max_tokens is {params.max_tokens}, expected at least 1")
    if not (math.isfinite(params.temperature) and params.temperature >= 0):
        raise RequestError(f"temperature is {params.temperature}, expected 0 (greedy) or a positive number")
    if not 0 < params.top_p <= 1:
        raise RequestError(f"top_p is {params.top_p}, expected a number above 0 and at most 1 (1: off)")
    if params.top_k < 0:
        raise RequestError(f"top_k is {params.top_k}, expected 0 (off) or a positive number")
    if "" in params.stop:
        raise RequestError("stop holds an empty string, which would end every completion: remove it")
