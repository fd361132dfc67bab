"""Pretraining: next-token prediction on packed documents, with multi-token prediction and expert balance.

    loss = cross-entropy + mtp_weight x mean over depths of the MTP cross-entropy + balance_alpha x sequence-wise
    balance

Source: DeepSeek-V3 (arXiv 2412.19437), sections 2.1.2 and 2.2; the MTP weight is 0.3, and 0.1 after about two thirds.

Shapes: `B` rows, `T` tokens, `D` width, `R` = B T flat tokens.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from octavo import rundir
from octavo.data.batch import Batch
from octavo.data.sources import Source
from octavo.losses.cross_entropy import cross_entropy
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.groups import build_optimizer
from octavo.rundir import StageDir
from octavo.text.tokenizer import Tokenizer
from octavo.train.loop import fit
from octavo.train.progress import Observer
from octavo.train.reading import ReadingConfig, packed_loader
from octavo.train.types import FitResult, HeldOut
from octavo.world import World


class PretrainConfig(ReadingConfig):
    """Pretraining of a model on a corpus."""

    train_on_prompts: bool = True
    """Whether questions count in the loss too, where the corpus has conversations."""
    mtp_weight: float = Field(default=0.3, ge=0)
    """Weight of multi-token prediction (if the model has it) at first ..."""
    mtp_late_weight: float = Field(default=0.1, ge=0)
    """... and later, ..."""
    mtp_late_share: float = Field(default=0.67, ge=0, le=1)
    """... after this share of the steps."""


def pretrain(
    model: Transformer,
    tokenizer: Tokenizer,
    source: Source,
    config: PretrainConfig,
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
        functools.partial(pretrain_loss, config),
        config.loop,
        world,
        stage,
        observer=observer,
        held_out=held_out,
    )


def pretrain_loss(config: PretrainConfig, model: Transformer, batch: Batch, share_done: float) -> LossSum:
    """The loss of one micro-batch. Statistic besides those of `cross_entropy`: `mtp_loss`, unweighted."""
    hidden_BTD = model(batch.inputs_BT, batch.positions_BT)
    loss = next_token_loss(model, hidden_BTD, batch)
    mtp_weight = config.mtp_weight if share_done < config.mtp_late_share else config.mtp_late_weight
    if model.config.mtp_layers and mtp_weight > 0:
        mtp_sum = mtp_loss_sum(model, hidden_BTD, batch)
        sums = {**loss.sums, rundir.MTP_LOSS: mtp_sum.detach()}
        loss = replace(loss, sums=sums, auxiliary_sum=mtp_weight * mtp_sum)
    return replace(loss, balance_sum=balance_sum(model, config.balance_alpha))


def balance_sum(model: Transformer, alpha: float) -> Float[Tensor, ""] | None:
    """Weighted balance loss of the model's last forward; None without experts or without weight."""
    total = model.balance_loss() if alpha > 0 else None
    return None if total is None else alpha * total


def next_token_loss(model: Transformer, hidden_BTD: Float[Tensor, "B T D"], batch: Batch) -> LossSum:
    """Cross-entropy of a batch's targets."""
    return cross_entropy(
        hidden_BTD.flatten(0, 1), model.head_weight_VD, batch.targets_BT.flatten(), batch.weights_BT.flatten()
    )


def mtp_loss_sum(model: Transformer, hidden_BTD: Float[Tensor, "B T D"], batch: Batch) -> Float[Tensor, ""]:
    """Sum over tokens and mean over depths of the cross-entropy of tokens further ahead (DeepSeek-V3, eq. 24 and
    25)."""
    total = hidden_BTD.new_zeros(())
    ahead = model.mtp_hidden(hidden_BTD, batch.inputs_BT, batch.positions_BT)
    for depth, mtp_hidden_BTD in enumerate(ahead, start=1):
        targets_BT, weights_BT = targets_ahead(batch, depth)
        total = (
            total
            + cross_entropy(
                mtp_hidden_BTD.flatten(0, 1), model.head_weight_VD, targets_BT.flatten(), weights_BT.flatten()
            ).loss_sum
        )
    return total / len(ahead)


def targets_ahead(batch: Batch, depth: int) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """The token 1 + `depth` after each, and its weight: 0 where that token is not of the same document."""
    targets_BT = batch.targets_BT.roll(-depth, dims=1)
    weights_BT = batch.weights_BT.roll(-depth, dims=1)
    same_BT = batch.positions_BT.roll(-depth, dims=1) == batch.positions_BT + depth
    # Rolled in from the row's beginning: never ahead.
    same_BT[:, -depth:] = False
    return targets_BT, torch.where(same_BT, weights_BT, 0.0)
