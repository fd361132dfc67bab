"""Supervised fine-tuning: next-token prediction on assistant turns (or on whole conversations).

The base model may be sparse: the balance of its experts goes on as in pretraining. MTP modules rest.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from pydantic import Field

from octavo.config import Config
from octavo.data.batch import Batch
from octavo.data.loader import PackedLoader
from octavo.data.sources import Source
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerConfig, build_optimizer
from octavo.rundir import StageDir
from octavo.text.template import encode_documents
from octavo.text.tokenizer import Tokenizer
from octavo.train.loop import fit
from octavo.train.pretrain import balance_sum, next_token_loss
from octavo.train.progress import Observer
from octavo.train.types import FitResult, HeldOut, LoopConfig
from octavo.world import World


class SFTConfig(Config):
    """Fine-tuning on conversations."""

    loop: LoopConfig
    optimizer: OptimizerConfig
    tokens_per_step: int = Field(gt=0)
    """Tokens read in one optimizer step, over all ranks."""
    tokens_per_row: int = Field(gt=0)
    """Length of a packed row: longer conversations are cut."""
    micro_batch_tokens: int = Field(gt=0)
    """Tokens read at once; smaller needs less memory and changes nothing else."""
    epochs: int | None = Field(default=None, gt=0)
    """Passes over the conversations; None: as many as the steps need."""
    train_on_prompts: bool = False
    """Whether questions count in the loss too."""
    balance_alpha: float = Field(default=1e-4, ge=0)
    """Weight of the sequence-wise balance loss of the experts."""


def sft(
    model: Transformer,
    tokenizer: Tokenizer,
    source: Source,
    config: SFTConfig,
    world: World,
    stage: StageDir,
    seed: int,
    observer: Observer | None = None,
    held_out: HeldOut | None = None,
) -> FitResult:
    """Train `model` in place. Resumes from `stage.state`. Raises as `fit` and `PackedLoader` do."""
    return fit(
        model,
        build_optimizer(model, config.optimizer),
        conversation_loader(tokenizer, source, config, world, seed),
        functools.partial(sft_loss, config),
        config.loop,
        world,
        stage,
        observer=observer,
        held_out=held_out,
    )


def conversation_loader(
    tokenizer: Tokenizer, source: Source, config: SFTConfig, world: World, seed: int
) -> PackedLoader:
    """Packed conversations, with weight on what the assistant says."""
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


def sft_loss(config: SFTConfig, model: Transformer, batch: Batch, share_done: float) -> LossSum:
    """Cross-entropy of the tokens with weight, plus the balance of the experts."""
    loss = next_token_loss(model, model(batch.inputs_BT, batch.positions_BT), batch)
    return replace(loss, balance_sum=balance_sum(model, config.balance_alpha))
