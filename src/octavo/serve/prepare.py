"""From what is asked for to what an engine is given. Work for a thread of its own: tokenizing, compiling grammars."""

import math
import secrets
from dataclasses import dataclass

from octavo.serve.calls import ChatCall, Sampling, Scored, TextCall, Token
from octavo.serve.config import ServiceConfig
from octavo.serve.driver import Job
from octavo.serve.errors import ApiError
from octavo.serve.loaded import Loaded
from octavo.serve.reader import ChatReader, Reader, TextReader
from octavo.serve.tools import as_schemas, knows_tools, told_in_words, tool_grammar
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.chat_template import PromptOptions
from octavo.text.template import encode_prompt, opens_reasoning
from octavo.text.tokens import ANSWER


@dataclass(frozen=True)
class Prepared:
    """A job, and a reader for each of its samples."""

    job: Job
    readers: list[Reader]


def prepare_chat(loaded: Loaded, call: ChatCall, config: ServiceConfig) -> Prepared:
    """Raises ApiError, DataError: messages that the chat template refuses, schemas that cannot be enforced."""
    use, tokenizer = call.tool_use, loaded.tokenizer
    native = knows_tools(loaded)
    options = PromptOptions(
        tools=as_schemas(use.tools) if native else (),
        enable_thinking=call.thinking,
        reasoning_effort=call.reasoning_effort,
    )
    messages = call.messages if native else told_in_words(call.messages, use.tools)
    prompt_ids = tuple(encode_prompt(tokenizer, messages, options))
    reasoning_open = opens_reasoning(tokenizer, prompt_ids)
    asked_for_tags = any(ANSWER in message.content for message in call.messages if message.role != "assistant")
    guide = None
    if use.tools or call.json_format is not None:
        from octavo.serve.guide import Guide, json_rule

        form, answer = call.json_format, None
        if form is not None:
            answer = json_rule(loaded, form.schema, form.strict, "response_format")
        grammar = tool_grammar(loaded, use, answer) if use.tools else f"start: {answer}"
        may_reason = loaded.reasons and call.thinking is not False
        guide = Guide(loaded, grammar, reasoning_open, may_reason, "tools" if use.tools else "response_format")
    request = _request(prompt_ids, call.sampling, loaded, config)
    readers: list[Reader] = [
        ChatReader(index, loaded, reasoning_open, bool(use.tools), not asked_for_tags, guide)
        for index in range(request.samples)
    ]
    return Prepared(Job(request, guide, call.sampling.top_logprobs), readers)


def prepare_text(loaded: Loaded, call: TextCall, config: ServiceConfig) -> Prepared:
    """Raises RequestError, DataError."""
    request = _request(prompt_ids_of(loaded, call.prompt), call.sampling, loaded, config)
    readers: list[Reader] = [TextReader(index, loaded) for index in range(request.samples)]
    return Prepared(Job(request, None, call.sampling.top_logprobs), readers)


def prompt_ids_of(loaded: Loaded, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
    """Plain text as the model reads it. Raises DataError."""
    if not isinstance(prompt, str):
        return prompt
    tokenizer = loaded.tokenizer
    start = tokenizer.document_start
    ids = (*([] if start is None else [tokenizer.token_id(start)]), *tokenizer.encode(prompt))
    # A model has to begin with something.
    return ids or (tokenizer.token_id(tokenizer.end_of_document),)


def scored(loaded: Loaded, ids: tuple[int, ...], top: int) -> Scored:
    """A prompt with its log-probs. On the driver's thread. Raises RequestError."""
    rest = [loaded.tell(token) for token in loaded.engine.score(ids, top)]
    first = Token(loaded.guide.decode_bytes([ids[0]]), math.nan)
    return Scored(loaded.tokenizer.decode(ids), (first, *rest))


def _request(
    prompt_ids: tuple[int, ...], sampling: Sampling, loaded: Loaded, config: ServiceConfig
) -> CompletionRequest:
    room = loaded.context_tokens - len(prompt_ids)
    if sampling.max_tokens is not None and sampling.max_tokens > room > 0:
        raise ApiError(
            400,
            f"the prompt has {len(prompt_ids)} tokens and max_tokens is {sampling.max_tokens}, together more than the "
            f"context of {loaded.context_tokens}: ask for at most {room}",
            "context_length_exceeded",
            "max_tokens",
        )
    if sampling.top_logprobs is not None:
        _ = loaded.guide  # made here and not in the midst of the reply
    params = SamplingParams(
        max_tokens=sampling.max_tokens or config.default_max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        stop=sampling.stop,
        seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
    )
    return CompletionRequest(prompt_ids, params, sampling.samples)
