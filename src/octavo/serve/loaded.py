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
from octavo.text.tokenizer import Tokenizer
from octavo.text.tokens import ANSWER, END_THINK, THINK
from octavo.weights.open import open_model

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_BYTES_PER_WEIGHT = 4


class Loaded:
    """One model with its engine. Its owner is the pool; the driver's thread alone touches the engine."""

    def __init__(self, name: str, path: Path, service: ServiceConfig) -> None:
        """Raises CheckpointError."""
        self.name = name
        self.model, self.tokenizer = open_model(path)
        self.config = self.model.config
        self.context_tokens = min(service.max_tokens or self.config.max_positions, self.config.max_positions)
        self.engine = Engine(
            self.model, self.tokenizer, EngineConfig(max_rows=service.max_rows, max_tokens=self.context_tokens)
        )
        template = self.tokenizer.files.templates.get("default", "")
        self.reasons = single_token(self.tokenizer, THINK) is not None or THINK in template or END_THINK in template
        """Whether it may open a reasoning of its own accord."""
        self.answers_in_tags = single_token(self.tokenizer, ANSWER) is not None
        """Whether `<answer>` means something to it."""

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


def needed_bytes(config: ModelConfig, service: ServiceConfig) -> int:
    """Memory that a model is counted with: its weights, and the prompts kept beside them."""
    return Accounting.of(config).total_parameters * _BYTES_PER_WEIGHT + service.prefix_cache_bytes


def single_token(tokenizer: Tokenizer, tag: str) -> int | None:
    """The id of a tag that the vocabulary has as one token."""
    ids = tokenizer.encode(tag)
    return ids[0] if len(ids) == 1 else None
