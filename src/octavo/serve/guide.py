"""Holds a reply to a grammar (llguidance), behind the reasoning if there is one.

The reasoning itself is free. Where the model may open one of its own accord, `<think>` is allowed at the beginning.

Shapes: `V` vocabulary.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from octavo.engine.constraint import Constraint
from octavo.engine.detokenizer import Detokenizer
from octavo.serve.errors import ApiError
from octavo.serve.loaded import Loaded, single_token
from octavo.text.tokens import ANSWER, END_ANSWER, END_THINK, THINK

_LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000, step_lexer_fuel=100_000, step_max_items=20_000, max_lexer_states=50_000,
    max_grammar_size=50_000, verbose_errors=False,
)  # fmt: skip
_MOST_SCHEMA_CHARACTERS = 100_000
_DEEPEST_SCHEMA = 32


class Guide:
    """A grammar, compiled: makes the constraint of each sample of a request."""

    def __init__(self, loaded: Loaded, grammar: str, reasoning_open: bool, may_reason: bool, param: str) -> None:
        """Raises ApiError for a grammar that is wrong or too much work."""
        self._loaded, self._reasoning_open, self._may_reason, self._param = loaded, reasoning_open, may_reason, param
        self._matcher = LLMatcher(loaded.guide, grammar, log_level=0, limits=_LIMITS)
        self._check(self._matcher)
        self._made: list[Guided] = []

    def __call__(self) -> Constraint:
        self._made.append(Guided(self._loaded, self._matcher.deep_copy(), self._reasoning_open, self._may_reason))
        return self._made[-1]

    def check(self, sample: int) -> None:
        """Raise ApiError if the grammar turned out to be too much work while a sample was written."""
        if sample < len(self._made):
            self._check(self._made[sample].matcher)

    def _check(self, matcher: LLMatcher) -> None:
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())[:300]
            raise ApiError(400, f"{self._param}: {reason}", "invalid_schema", self._param)


def json_rule(loaded: Loaded, schema: Mapping[str, Any], strict: bool, param: str) -> str:
    """The rule of an answer that is JSON, in `<answer>` tags for models that answer so. Raises ApiError."""
    answer = f"%json {schema_text(schema, strict, param)}"
    if loaded.answers_in_tags:
        answer = f"{ANSWER} {answer} {END_ANSWER}"
    return answer


def schema_text(schema: Mapping[str, Any], strict: bool, param: str) -> str:
    """A JSON Schema as grammars hold it. Unless `strict`, what cannot be enforced is left out. Raises ApiError."""
    if _depth(schema) > _DEEPEST_SCHEMA:
        raise ApiError(400, f"{param}: nested deeper than {_DEEPEST_SCHEMA} levels", "invalid_schema", param)
    text = json.dumps({**schema, "x-guidance": {"lenient": not strict}})
    if len(text) > _MOST_SCHEMA_CHARACTERS:
        message = f"{param}: {len(text)} characters, expected at most {_MOST_SCHEMA_CHARACTERS}"
        raise ApiError(400, message, "invalid_schema", param)
    return text


class Guided(Constraint):
    """Free reasoning, then what the grammar allows, then the end."""

    def __init__(self, loaded: Loaded, matcher: LLMatcher, reasoning_open: bool, may_reason: bool) -> None:
        self.matcher = matcher
        self._vocabulary = loaded.config.vocab_size
        self._reasoning = _Reasoning(loaded) if reasoning_open else None
        self._loaded = loaded
        self._may_open = single_token(loaded.tokenizer, THINK) if may_reason and not reasoning_open else None
        self._ends = sorted(id_ for id_ in loaded.tokenizer.end_ids if id_ < self._vocabulary)

    def allowed_V(self) -> np.ndarray | None:
        if self._reasoning is not None:  # all but the end: what was asked for is still to come
            allowed_V = np.ones(self._vocabulary, bool)
            allowed_V[self._ends] = False
            return allowed_V
        mask = self.matcher.compute_bitmask()
        if self.matcher.is_error():  # too much work: nothing is left but to end
            allowed_V = np.zeros(self._vocabulary, bool)
            allowed_V[self._ends] = True
            return allowed_V
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
        allowed_V = bits[: self._vocabulary].astype(bool)
        if self._may_open is not None:
            allowed_V[self._may_open] = True
        return allowed_V

    def advance(self, token: int) -> None:
        if self._reasoning is not None:
            if self._reasoning.closed_by(token):
                self._reasoning = None
            return
        if token == self._may_open:
            self._reasoning = _Reasoning(self._loaded)
        else:
            self.matcher.consume_token(token)
        self._may_open = None


class _Reasoning:
    """Watches for the tag that closes the reasoning, which may be several tokens."""

    def __init__(self, loaded: Loaded) -> None:
        self._end_id = loaded.end_think_id
        self._detokenizer = Detokenizer(loaded.tokenizer)
        self._tail = ""

    def closed_by(self, token: int) -> bool:
        if self._end_id is not None:
            return token == self._end_id
        self._tail = self._tail[-len(END_THINK) :] + self._detokenizer.add(token)
        return END_THINK in self._tail


def _depth(value: Any, depth: int = 0) -> int:
    """How deep lists and mappings are nested; counted no further than what is refused."""
    if depth > _DEEPEST_SCHEMA or not isinstance(value, (Mapping, list)):
        return depth
    children = value.values() if isinstance(value, Mapping) else value
    return max((_depth(child, depth + 1) for child in children), default=depth)
