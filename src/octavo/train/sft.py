"""Supervised fine-tuning: next-token prediction on assistant turns (or on whole conversations).

The base model may be sparse: the balance of its experts goes on as in pretraining. MTP modules rest.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from octavo.data.batch import Batch
from octavo.data.sources import Source
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.groups import build_optimizer
from octavo.rundir import StageDir
from octavo.text.tokenizer import Tokenizer
from octavo.train.loop import fit
from octavo.train.prefixes import share_prefixes
from octavo.train.pretrain import balance_sum, next_token_loss
from octavo.train.progress import Observer
from octavo.train.reading import ReadingConfig, packed_loader
from octavo.train.types import FitResult, HeldOut
from octavo.world import World


class SFTConfig(ReadingConfig):
    """Fine-tuning on conversations."""


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
        packed_loader(tokenizer, source, config, world, seed),
        functools.partial(sft_loss, config),
        config.loop,
        world,
        stage,
        observer=observer,
        held_out=held_out,
    )


def sft_loss(config: SFTConfig, model: Transformer, batch: Batch, share_done: float) -> LossSum:
    """Cross-entropy of the tokens with weight, plus the balance of the experts."""
    if model.config.moe is None:
        batch = share_prefixes(batch)
    loss = next_token_loss(model, model(batch.inputs_BT, batch.positions_BT), batch)
    return replace(loss, balance_sum=balance_sum(model, config.balance_alpha))
