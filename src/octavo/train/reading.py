"""What every trainer that reads documents shares: its config, and the stream of packed steps."""

import functools

from pydantic import Field

from octavo.config import Config
from octavo.data.loader import PackedLoader
from octavo.data.sources import Source
from octavo.optim.groups import OptimizerConfig
from octavo.text.template import encode_documents
from octavo.text.tokenizer import Tokenizer
from octavo.train.types import LoopConfig
from octavo.world import World


class ReadingConfig(Config):
    """Training on documents of a source."""

    loop: LoopConfig
    optimizer: OptimizerConfig
    tokens_per_step: int = Field(gt=0)
    """Tokens read in one optimizer step, over all ranks."""
    tokens_per_row: int = Field(gt=0)
    """Length of a packed row: longer documents are cut."""
    micro_batch_tokens: int = Field(gt=0)
    """Tokens read at once; smaller needs less memory and changes nothing else."""
    epochs: int | None = Field(default=None, gt=0)
    """Passes over the source; None: as many as the steps need."""
    train_on_prompts: bool = False
    """Whether questions count in the loss too, where there are conversations."""
    balance_alpha: float = Field(default=1e-4, ge=0)
    """Weight of the sequence-wise balance loss of the experts."""


def packed_loader(tokenizer: Tokenizer, source: Source, config: ReadingConfig, world: World, seed: int) -> PackedLoader:
    """The steps of `source`, encoded and packed as the config says. Raises as PackedLoader does."""
    return PackedLoader(
        source,
        functools.partial(encode_documents, tokenizer, train_on_prompts=config.train_on_prompts),
        tokens_per_step=config.tokens_per_step,
        tokens_per_row=config.tokens_per_row,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=seed,
        epochs=config.epochs,
        world=world,
    )
