"""Distillation: a student learns from what a teacher wrote, and from the teacher itself if it is at hand.

DeepSeek-R1 (section 2.4) distils by plain SFT on the teacher's verified samples: that is `teacher_share` 0, and needs
no teacher in memory. With a share above 0 the student also learns the teacher's whole distribution at each of those
tokens (Hinton et al. 2015).
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from pydantic import Field

from octavo.data.batch import Batch
from octavo.data.sources import Source
from octavo.errors import ConfigError
from octavo.losses.cross_entropy import cross_entropy
from octavo.losses.distill import Divergence, full_kl
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.groups import build_optimizer
from octavo.rundir import StageDir
from octavo.text.tokenizer import Tokenizer
from octavo.train.loop import fit
from octavo.train.pretrain import balance_sum
from octavo.train.progress import Observer
from octavo.train.reading import packed_loader
from octavo.train.sft import SFTConfig, sft
from octavo.train.types import FitResult, HeldOut
from octavo.world import World


class DistillConfig(SFTConfig):
    """Distillation on a teacher's samples."""

    teacher_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss that is the divergence from the teacher's distribution; the rest is cross-entropy on its
    samples."""
    divergence: Divergence = "forward_kl"
    """forward_kl: cover all that the teacher might say; reverse_kl: keep to what it finds likely."""


def distill(
    student: Transformer,
    tokenizer: Tokenizer,
    source: Source,
    config: DistillConfig,
    world: World,
    stage: StageDir,
    seed: int,
    teacher: Transformer | None = None,
    observer: Observer | None = None,
    held_out: HeldOut | None = None,
) -> FitResult:
    """Train `student` in place on the teacher's samples in `source`. Resumes from `stage.state`.

    Raises ConfigError if a share is asked of a teacher that is not there or has another vocabulary.
    """
    if config.teacher_share == 0:
        return sft(student, tokenizer, source, config, world, stage, seed, observer, held_out)
    if teacher is None:
        raise ConfigError(f"teacher_share is {config.teacher_share}, but there is no teacher; give one, or set it to 0")
    if teacher.config.vocab_size != student.config.vocab_size:
        raise ConfigError(
            f"teacher and student must share a vocabulary, got {teacher.config.vocab_size} and "
            f"{student.config.vocab_size} tokens; set teacher_share to 0 to distil by samples alone"
        )
    return fit(
        student,
        build_optimizer(student, config.optimizer),
        packed_loader(tokenizer, source, config, world, seed),
        functools.partial(distill_loss, config, teacher.eval()),
        config.loop,
        world,
        stage,
        observer=observer,
        held_out=held_out,
    )


def distill_loss(
    config: DistillConfig, teacher: Transformer, student: Transformer, batch: Batch, share_done: float
) -> LossSum:
    """(1 - share) x cross-entropy + share x divergence, of the tokens with weight."""
    weights_R = batch.weights_BT.flatten()
    rows = weights_R.nonzero().squeeze(1)
    weights_R, targets_R = weights_R[rows], batch.targets_BT.flatten()[rows]
    hidden_RD = student(batch.inputs_BT, batch.positions_BT).flatten(0, 1)[rows]
    with torch.no_grad():
        teacher_hidden_RH = teacher(batch.inputs_BT, batch.positions_BT).flatten(0, 1)[rows]
    sampled = cross_entropy(hidden_RD, student.head_weight_VD, targets_R, weights_R)
    whole = full_kl(
        config.divergence,
        hidden_RD,
        student.head_weight_VD,
        teacher_hidden_RH,
        teacher.head_weight_VD.detach(),
        weights_R,
    )
    share = config.teacher_share
    return replace(
        sampled,
        loss_sum=(1 - share) * sampled.loss_sum + share * whole.loss_sum,
        sums={**sampled.sums, **whole.sums, "cross_entropy": sampled.loss_sum.detach()},
        balance_sum=balance_sum(student, config.balance_alpha),
    )
