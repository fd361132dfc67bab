"""On-policy distillation: the student writes, the teacher says how likely each token was (GKD, Agarwal et al. 2024).

It learns where its own text leads it, which samples of the teacher do not show; and it needs no verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor

from octavo import heap
from octavo.config import Config
from octavo.data.batch import Batch
from octavo.losses.distill import sampled_reverse_kl
from octavo.losses.logprobs import token_objective
from octavo.losses.loss_sum import LossSum
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerConfig, build_optimizer
from octavo.rundir import StageDir
from octavo.tasks.types import Completer, CompletionRequest, Problem, SamplingParams
from octavo.train.loop import fit
from octavo.train.progress import Observer
from octavo.train.rollouts import Problems
from octavo.train.samples import Sample, pack_samples, with_reference
from octavo.train.types import FitResult, HeldOut, LoopConfig
from octavo.world import World, derive_seed


class OnPolicyDistillConfig(Config):
    """Distillation on the student's own completions."""

    loop: LoopConfig
    optimizer: OptimizerConfig
    prompts_per_step: int = Field(gt=0)
    """Problems that the student answers once in each optimizer step, over all ranks."""
    max_completion_tokens: int = Field(gt=0)
    micro_batch_tokens: int = Field(gt=0)
    """Tokens read at once when learning; smaller needs less memory and changes nothing else."""


class OnPolicyStream:
    """An iterator over optimizer steps: completions of the next problems, with the teacher's log-probs."""

    def __init__(
        self,
        problems: Problems,
        completer: Completer,
        encode: Callable[[Problem], Sequence[int]],
        teacher: Transformer,
        config: OnPolicyDistillConfig,
        world: World,
        seed: int,
    ) -> None:
        self._problems, self._completer, self._encode, self._teacher = problems, completer, encode, teacher
        self._config, self._world, self._seed = config, world, seed
        self._cursor = 0

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        indices = range(self._cursor, self._cursor + self._config.prompts_per_step)
        self._cursor = indices.stop
        requests = [self._request(index) for index in indices if index % self._world.size == self._world.rank]
        with heap.tidied():
            answered = self._completer.complete(requests) if requests else []
        samples = [Sample(group[0], advantage=0.0, token_weight=1.0) for group in answered]
        return [
            with_reference(batch, self._teacher) for batch in pack_samples(samples, self._config.micro_batch_tokens)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self._cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cursor = state["cursor"]

    def _request(self, index: int) -> CompletionRequest:
        problem = self._problems.problem("train", self._seed, index)
        seed = derive_seed(self._seed, "rollout", index)
        return CompletionRequest(
            tuple(self._encode(problem)), SamplingParams(self._config.max_completion_tokens, seed=seed)
        )


def distill_on_policy(
    student: Transformer,
    teacher: Transformer,
    completer: Completer,
    problems: Problems,
    encode: Callable[[Problem], Sequence[int]],
    config: OnPolicyDistillConfig,
    world: World,
    stage: StageDir,
    seed: int,
    observer: Observer | None = None,
    held_out: HeldOut | None = None,
) -> FitResult:
    """Train `student` in place; `completer` must draw from its current weights. Resumes from `stage.state`."""
    return fit(
        student,
        build_optimizer(student, config.optimizer),
        OnPolicyStream(problems, completer, encode, teacher.eval(), config, world, seed),
        on_policy_loss,
        config.loop,
        world,
        stage,
        observer=observer,
        held_out=held_out,
    )


def on_policy_loss(student: Transformer, batch: Batch, share_done: float) -> LossSum:
    """`sampled_reverse_kl` of one micro-batch."""
    assert batch.behaviour_logprobs_BT is not None
    assert batch.reference_logprobs_BT is not None
    weights_R = batch.weights_BT.flatten()
    rows = weights_R.nonzero().squeeze(1)
    hidden_BTD = student(batch.inputs_BT, batch.positions_BT)
    weights_R, behaviour_R = weights_R[rows], batch.behaviour_logprobs_BT.flatten()[rows]
    teacher_R = batch.reference_logprobs_BT.flatten()[rows]

    def loss_of(span: slice, logprobs_C: Tensor) -> LossSum:
        return sampled_reverse_kl(logprobs_C, behaviour_R[span], teacher_R[span], weights_R[span])

    loss_sum, logprobs_R, _ = token_objective(
        lambda span, logprobs_C: loss_of(span, logprobs_C).loss_sum,
        hidden_BTD.flatten(0, 1)[rows],
        student.head_weight_VD,
        batch.targets_BT.flatten()[rows],
    )
    return replace(loss_of(slice(None), logprobs_R), loss_sum=loss_sum)
