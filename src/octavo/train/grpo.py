"""GRPO: reinforcement learning from verifiable rewards (DeepSeek-R1; kinds dapo, grpo and dr_grpo in losses/policy.py).

With one update a rollout and no KL the printed loss is about 0 by construction: watch reward, tied groups, entropy and
length.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import model_validator
from torch import Tensor

from octavo import rundir
from octavo.config import Config
from octavo.data.batch import Batch
from octavo.losses.logprobs import token_objective
from octavo.losses.loss_sum import LossSum
from octavo.losses.policy import PolicyConfig, policy_loss
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerConfig, build_optimizer
from octavo.rundir import StageDir
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.rewards import RewardConfig, score_rollouts
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.types import Completer, Completion, Problem, Rollout
from octavo.text.tokenizer import Tokenizer
from octavo.train.loop import fit
from octavo.train.progress import Observer, Silent
from octavo.train.rollout_config import RolloutConfig
from octavo.train.rollouts import RolloutStream
from octavo.train.samples import completions_in
from octavo.train.types import FitResult, HeldOut, LoopConfig
from octavo.world import World

SamplerWeights = Literal["exact", "int8"]


class GRPOConfig(Config):
    """Reinforcement learning on problems with a verifier."""

    loop: LoopConfig
    optimizer: OptimizerConfig
    rollouts: RolloutConfig
    policy: PolicyConfig = PolicyConfig()
    rewards: RewardConfig = RewardConfig()
    sampler_weights: SamplerWeights = "exact"
    """int8: completions are drawn with weights rounded to 8 bits, in half the time or less. The sampler is then not
    quite the learner, so policy.importance_cap must be set."""

    @model_validator(mode="after")
    def _sampler_is_corrected_for(self) -> Self:
        if self.sampler_weights == "int8" and self.policy.importance_cap is None:
            raise ValueError("sampler_weights int8 needs policy.importance_cap, as 2: sampler and learner differ")
        return self


@dataclass(frozen=True)
class GRPOResult(FitResult):
    """As FitResult; `tokens` are those learned from."""

    generated_tokens: int = 0
    """Completion tokens drawn, over all ranks, including earlier pieces of a resumed run."""


def grpo(
    model: Transformer,
    tokenizer: Tokenizer,
    completer: Completer,
    tasks: Task | TaskMixture,
    config: GRPOConfig,
    world: World,
    stage: StageDir,
    seed: int,
    observer: Observer | None = None,
    held_out: HeldOut | None = None,
    asking: AskingConfig = PLAINLY,
) -> GRPOResult:
    """Train `model` in place; `completer` must draw from its current weights, rounded as `config.sampler_weights` says.
    Resumes from `stage.state`.

    `model` must come with the weights that the stage starts from, also when it resumes: they are the reference of the
    KL. Raises as `fit` and `RolloutStream` do.
    """

    def score(completed: Sequence[tuple[Problem, Completion]]) -> list[Rollout]:
        return score_rollouts(tasks, completed, config.rewards, asking)

    def encode(problem: Problem) -> tuple[int, ...]:
        return asking.prompt(tokenizer, problem)

    observer = observer or Silent()
    reference = copy.deepcopy(model).eval().requires_grad_(False) if config.policy.kl_coefficient > 0 else None
    stream = RolloutStream(
        tasks, completer, score, encode, config.rollouts, config.policy.kind, world, stage, seed, observer, reference
    )
    result = fit(
        model,
        build_optimizer(model, config.optimizer),
        stream,
        functools.partial(grpo_loss, config.policy),
        config.loop,
        world,
        stage,
        observer=observer,
        normalizer=completions_in if config.policy.kind == "dr_grpo" else lambda batch: batch.weight,
        stream_metrics=stream.metrics,
        held_out=held_out,
    )
    return GRPOResult(**vars(result), generated_tokens=stream.generated_tokens)


def grpo_loss(config: PolicyConfig, model: Transformer, batch: Batch, share_done: float) -> LossSum:
    """Policy loss of one micro-batch. Statistics: those of `policy_loss`, and `entropy` of the policy (nats a
    token)."""
    assert batch.advantages_BT is not None
    assert batch.behaviour_logprobs_BT is not None
    weights_R = batch.weights_BT.flatten()
    rows = weights_R.nonzero().squeeze(1)
    weights_R = weights_R[rows]
    hidden_BTD = model(batch.inputs_BT, batch.positions_BT)
    behaviour_R, advantages_R = batch.behaviour_logprobs_BT.flatten()[rows], batch.advantages_BT.flatten()[rows]
    reference_BT = batch.reference_logprobs_BT
    reference_R = None if reference_BT is None else reference_BT.flatten()[rows]

    def loss_of(span: slice, logprobs_C: Tensor) -> LossSum:
        reference_C = None if reference_R is None else reference_R[span]
        return policy_loss(config, logprobs_C, behaviour_R[span], advantages_R[span], weights_R[span], reference_C)

    loss_sum, logprobs_R, entropy_R = token_objective(
        lambda span, logprobs_C: loss_of(span, logprobs_C).loss_sum,
        hidden_BTD.flatten(0, 1)[rows],
        model.head_weight_VD,
        batch.targets_BT.flatten()[rows],
        with_entropy=True,
    )
    loss = loss_of(slice(None), logprobs_R)
    return replace(loss, loss_sum=loss_sum, sums={**loss.sums, rundir.ENTROPY: (weights_R * entropy_R).sum()})
