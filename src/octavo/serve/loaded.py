"""A model in memory, ready to answer, and all that is known of it beside its weights."""

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.engine.config import EngineConfig
from octavo.engine.drawn import DrawnToken
from octavo.engine.engine import Engine
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.serve.calls import Token
from octavo.serve.config import ServiceConfig
from octavo.serve.pooling import Pooling, read_pooling
from octavo.text.tokenizer import Tokenizer
from octavo.text.tokens import ANSWER, END_THINK, THINK
from octavo.weights.open import open_model

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_BYTES_PER_WEIGHT = 4


class Loaded:
    """One model with its engine. Its owner is the pool; the driver's thread alone touches the engine."""

    def __init__(self, name: str, path: Path, service: ServiceConfig, memory_bytes: int) -> None:
        """`memory_bytes`: all that the service may use. Raises CheckpointError."""
        self.name, self.path = name, path
        self.model, self.tokenizer = open_model(path, service.quantize)
        self.config = self.model.config
        self.context_tokens = min(service.max_tokens or self.config.max_positions, self.config.max_positions)
        engine = EngineConfig(
            max_rows=service.max_rows,
            max_tokens=self.context_tokens,
            cache_tokens=max(1, int(memory_bytes * service.cache_share) // bytes_per_token(self.config)),
            prefix_cache_bytes=int(memory_bytes * service.prefix_share),
        )
        self.engine = Engine(self.model, self.tokenizer, engine)
        template = self.tokenizer.files.templates.get("default", "")
        self.reasons = single_token(self.tokenizer, THINK) is not None or THINK in template or END_THINK in template
        """Whether it may open a reasoning of its own accord."""
        self.answers_in_tags = single_token(self.tokenizer, ANSWER) is not None
        """Whether `<answer>` means something to it."""

    @cached_property
    def pooling(self) -> Pooling | None:
        """How it makes a vector of a text; None: it makes none."""
        return read_pooling(self.path)

    @cached_property
    def guide(self) -> "LLTokenizer":
        """The vocabulary as the library of grammars wants it; made at the first use, which takes up to a second."""
        from llguidance import LLTokenizer

        definition, ends = json.dumps(self.tokenizer.definition()), sorted(self.tokenizer.end_ids)
        return LLTokenizer(definition, n_vocab=self.config.vocab_size, eos_token=ends)

    def tell(self, drawn: DrawnToken) -> Token:
        """A token as those read it who know nothing of ids."""
        top = tuple((self.guide.decode_bytes([id_]), logprob) for id_, logprob in drawn.top)
        return Token(self.guide.decode_bytes([drawn.id]), drawn.logprob, top)

    @cached_property
    def end_think_id(self) -> int | None:
        """The token that ends the reasoning, if it is one."""
        return single_token(self.tokenizer, END_THINK)


def needed_bytes(config: ModelConfig, service: ServiceConfig, memory_bytes: int) -> int:
    """Memory that a model is counted with: its weights, and the caches at their largest."""
    longest = min(service.max_tokens or config.max_positions, config.max_positions)
    cache = min(int(memory_bytes * service.cache_share), service.max_rows * longest * bytes_per_token(config))
    weights = Accounting.of(config).total_parameters * (1 if service.quantize else _BYTES_PER_WEIGHT)
    return weights + cache + int(memory_bytes * service.prefix_share)


def bytes_per_token(config: ModelConfig) -> int:
    """Of keys and values."""
    return Accounting.of(config).cache_bytes_per_token(_BYTES_PER_WEIGHT)


def single_token(tokenizer: Tokenizer, tag: str) -> int | None:
    """The id of a tag that the vocabulary has as one token."""
    ids = tokenizer.encode(tag)
    return ids[0] if len(ids) == 1 else None
