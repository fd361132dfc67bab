"""What a stage spends: tokens, and FLOPs by accounting."""

from dataclasses import dataclass

from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """Tokens trained on and generated, and FLOPs by accounting."""

    tokens: int = 0
    flops: float = 0.0


def training_cost(config: ModelConfig, tokens: int, tokens_per_document: float) -> Cost:
    """Of tokens trained on; on average each attends to half of its document (or row: an upper limit)."""
    return Cost(tokens, tokens * Accounting.of(config).training_flops_per_token(tokens_per_document / 2))


def generation_cost(config: ModelConfig, tokens: int, tokens_per_sequence: float) -> Cost:
    """Of tokens read as prompts or drawn; on average each attends to half of its sequence."""
    return Cost(tokens, tokens * Accounting.of(config).forward_flops_per_token(tokens_per_sequence / 2))
