"""The only training loop. A trainer is a stream of `Batch` plus a loss function; everything else is here.

One optimizer step: micro-batches -> loss sums / global normalizer -> backward -> gradients summed over ranks ->
finite? -> clip -> optimizer -> bias of the routers. Since the normalizer is that of the whole step, neither the cut
into micro-batches nor the number of ranks changes the update.

A checkpoint holds all that decides the rest (weights, optimizer, stream, random state), so a resumed run equals the
uninterrupted one bit for bit on the same machine with the same number of threads. Only the main rank writes; a
stream's state must be the same on every rank.

Shapes: `L` routers, `E` experts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from octavo import heap, rundir
from octavo.checkpoint import load_latest, save_state
from octavo.data.batch import Batch
from octavo.errors import TrainingError
from octavo.model.lora import has_lora
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerSet
from octavo.rundir import StageDir
from octavo.train.learned import learned_state, load_learned
from octavo.train.pace import Pace
from octavo.train.progress import Observer, Progress, Silent
from octavo.train.tally import Divisors, Tally
from octavo.train.types import FitResult, HeldOut, LoopConfig, LossFunction, Stream
from octavo.world import World, rng_state, set_rng_state


def fit(
    model: Transformer,
    optimizer: OptimizerSet,
    stream: Stream,
    loss_function: LossFunction,
    config: LoopConfig,
    world: World,
    stage: StageDir,
    *,
    observer: Observer | None = None,
    normalizer: Callable[[Batch], float] = lambda batch: batch.weight,
    stream_metrics: Callable[[], Mapping[str, float]] = dict,
    held_out: HeldOut | None = None,
) -> FitResult:
    """Train to the end, from the newest whole checkpoint in `stage.state` if there is one.

    `normalizer` gives a micro-batch's share of what the loss is divided by; `stream_metrics` is asked after each step.
    Raises TrainingError before the update if loss or gradient is not finite, CheckpointError, StorageError.
    """
    heap.keep_large_blocks_apart()
    loop = _Loop(model, optimizer, stream, config, world, stage, observer or Silent())
    loop.resume()
    if held_out:
        loop.judge_start(held_out)
    while not loop.is_over():
        started = time.perf_counter()
        batches = next(stream, None)
        if batches is None:
            break
        metrics = loop.update(batches, loss_function, normalizer) | dict(stream_metrics())
        if held_out and loop.evaluation_is_due():
            metrics[held_out.metric] = loop.judge(held_out)
        loop.record(metrics, time.perf_counter() - started)
    loop.finish()
    return FitResult(loop.step, loop.tokens, loop.best.get("step"), loop.best.get("score"))


class _Loop:
    """The state of a training run and what is done to it."""

    def __init__(
        self,
        model: Transformer,
        optimizer: OptimizerSet,
        stream: Stream,
        config: LoopConfig,
        world: World,
        stage: StageDir,
        observer: Observer,
    ) -> None:
        self.model, self.optimizer, self.stream = model, optimizer, stream
        self.config, self.world, self.stage, self.observer = config, world, stage, observer
        self.step = 0
        self.tokens = 0
        self._step_tokens = 0
        self.best: dict[str, Any] = {}
        self._saved_step = 0
        self._saved_at = time.monotonic()
        self._pace = Pace(config.steps, config.minutes, world)
        self._planned_steps = config.steps

    def resume(self) -> None:
        """Take up the newest checkpoint, and drop what was logged after it."""
        loaded = load_latest(self.stage.state, self.observer.on_warning)
        if loaded:
            self.step, state = loaded
            self.tokens, self.best = state["tokens"], state["best"]
            self._pace.load_state_dict(state)
            load_learned(self.model, state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.stream.load_state_dict(state["stream"])
            set_rng_state(state["rng"])
        self._saved_step = self.step
        if self.world.is_main:
            for path in (self.stage.metrics, self.stage.rollouts):
                rundir.truncate_after_step(path, self.step)
        self.world.barrier()

    def is_over(self) -> bool:
        """Whether the steps are done or the time is up."""
        self._planned_steps = self._pace.planned_steps(self.step)
        return self.step >= self._planned_steps

    def update(
        self, batches: list[Batch], loss_function: LossFunction, normalizer: Callable[[Batch], float]
    ) -> dict[str, float]:
        """One optimizer step. If no token counts, nothing is changed."""
        each = [(normalizer(batch), batch.weight, batch.tokens) for batch in batches]
        own = torch.tensor(each, dtype=torch.float64, device=self.world.device).view(-1, 3).sum(0)
        divisors = Divisors(*self.world.all_reduce_(own).tolist())
        self.optimizer.scale_rates(self.config.schedule.factor(self.step, self._planned_steps))
        tally, loads_LE = self._accumulate(batches, loss_function, divisors)
        norm = self._gradient_norm()
        metrics = tally.metrics(divisors, self.world)
        self._check_finite(metrics, norm)
        if divisors.normalizer > 0:
            torch.nn.utils.clip_grads_with_norm_(self.optimizer.parameters, self.config.clip_norm, norm)
            self.optimizer.step()
            self._update_bias(loads_LE)
            metrics |= _load_metrics(loads_LE)
        self.optimizer.zero_grad()
        self.step += 1
        self._step_tokens = int(divisors.tokens)
        self.tokens += self._step_tokens
        return metrics | {
            rundir.GRADIENT_NORM: float(norm),
            rundir.LEARNING_RATE: self.optimizer.param_groups[0]["lr"],
            rundir.TOKENS: float(self.tokens),
        }

    def evaluation_is_due(self) -> bool:
        """By steps, and after the last one, also if it was the time that ended."""
        every = self.config.evaluate_every_steps
        if every is None:
            return False
        return self.is_over() or self.step % every == 0

    def judge_start(self, held_out: HeldOut) -> None:
        """Score the weights that training begins with: they are given back if it finds none that are better."""
        if self.step == 0 and self.config.evaluate_every_steps is not None and not self.is_over():
            self.judge(held_out)
            self._pace.open()

    def judge(self, held_out: HeldOut) -> float:
        """Score the weights, and keep a copy of them if they are the best so far."""
        score = held_out.score()
        if not self.best or score > self.best["score"]:
            weights = {name: tensor.clone() for name, tensor in learned_state(self.model).items()}
            self.best = {"step": self.step, "score": score, "model": weights}
        return score

    def record(self, metrics: dict[str, float], seconds: float) -> None:
        """Log the step, which took so many seconds, save if it is time, tell the observer."""
        metrics[rundir.SECONDS] = seconds
        metrics[rundir.TOKENS_PER_SECOND] = self._step_tokens / seconds
        if not self.world.is_main:
            return
        rundir.append_jsonl(self.stage.metrics, [{"step": self.step} | metrics])
        if self._checkpoint_is_due():
            self._save()
        self.observer.on_step(
            Progress(
                stage=self.stage.path.name,
                step=self.step,
                steps=self._planned_steps,
                tokens=self.tokens,
                seconds_left=self._pace.seconds_left(self.step, self._planned_steps),
                metrics=metrics,
            )
        )

    def finish(self) -> None:
        """Write the last checkpoint, and give back the best weights if they were judged."""
        if self.world.is_main and self.step > self._saved_step:
            self._save()
        self.world.barrier()
        if not self.best:
            return
        load_learned(self.model, self.best["model"])
        if self.best["step"] == 0 and self.step > 0 and self.world.is_main:
            self.observer.on_warning(
                f"{self.stage.path.name}: no weights scored above those that it began with "
                f"({self.best['score']:.3g}), so these are kept; try a lower learning rate, or more steps"
            )

    def _accumulate(
        self, batches: list[Batch], loss_function: LossFunction, divisors: Divisors
    ) -> tuple[Tally, Tensor]:
        """Forward and backward of this rank's micro-batches; the losses, and the loads of the experts over all
        ranks."""
        self.model.train()
        self._take_loads()  # what was counted between steps is not of this one
        share_done = self.step / self._planned_steps
        tally = Tally()
        # A rank without micro-batches takes part with a token that does not count: the others wait for its sums.
        for batch in batches or [_nothing()]:
            loss = loss_function(self.model, _to(batch, self.world.device), share_done)
            tally.add(loss)
            divisors.objective(loss).backward()
        loads_LE = self._take_loads()
        if not batches:
            loads_LE.zero_()
        return tally, self.world.all_reduce_(loads_LE)

    def _gradient_norm(self) -> Tensor:
        """Sum the gradients over ranks, and return their global norm."""
        gradients = [parameter.grad for parameter in self.optimizer.parameters if parameter.grad is not None]
        for gradient in gradients:
            self.world.all_reduce_(gradient)
        return torch.nn.utils.get_total_norm(gradients)

    def _take_loads(self) -> Tensor:
        """Tokens sent to each expert since the last call, [L, E]; [0, 0] without experts."""
        loads = [router.take_load() for router in self.model.routers()]
        return torch.stack(loads) if loads else torch.zeros(0, 0, device=self.world.device)

    def _update_bias(self, loads_LE: Tensor) -> None:
        if has_lora(self.model):  # an adapter has no place for it
            return
        if self.step < (1 - self.config.bias_freeze_share) * self._planned_steps:
            for router, load_E in zip(self.model.routers(), loads_LE, strict=True):
                router.update_bias(load_E, self.config.bias_rate)

    def _check_finite(self, metrics: Mapping[str, float], norm: Tensor) -> None:
        if all(map(math.isfinite, metrics.values())) and bool(norm.isfinite()):
            return
        rate = self.optimizer.param_groups[0]["lr"]
        raise TrainingError(
            f"{self.stage.path.name}, step {self.step + 1}: loss {metrics[rundir.LOSS]:.4g}, "
            f"gradient norm {float(norm):.4g}; stopped before the update. Try a learning rate below {rate:.3g}, more "
            "warmup steps or a smaller clip_norm"
        )

    def _checkpoint_is_due(self) -> bool:
        steps, seconds = self.config.checkpoint_every_steps, self.config.checkpoint_every_seconds
        by_steps = steps is not None and self.step % steps == 0
        by_seconds = seconds is not None and time.monotonic() - self._saved_at >= seconds
        return by_steps or by_seconds

    def _save(self) -> None:
        state = {
            "tokens": self.tokens,
            **self._pace.state_dict(),
            "best": self.best,
            "model": learned_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "rng": rng_state(),
        }
        save_state(self.stage.state, self.step, state)
        self._saved_step, self._saved_at = self.step, time.monotonic()


def _load_metrics(loads_LE: Tensor) -> dict[str, float]:
    if not loads_LE.numel():
        return {}
    busiest_L = (loads_LE.amax(1) / loads_LE.mean(1)).tolist()
    each = {rundir.expert_load_of(layer): load for layer, load in enumerate(busiest_L, start=1)}
    return {rundir.EXPERT_LOAD_MAX: max(busiest_L)} | each


def _to(batch: Batch, device: torch.device) -> Batch:
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})


def _nothing() -> Batch:
    """One token that does not count."""
    ids, zeros = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1)
    return Batch(ids, ids, zeros, ids, advantages_BT=zeros, behaviour_logprobs_BT=zeros, reference_logprobs_BT=zeros)
