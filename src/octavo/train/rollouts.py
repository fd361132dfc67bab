"""Rollouts: problems are drawn, answered, graded; groups that teach something become micro-batches for the loop.

Problem number i is a function of the seed and i alone, and so are the random numbers of its completions, so a resumed
run draws what the uninterrupted one would. Over ranks, problem i belongs to rank i mod ranks.

Completions are drawn at temperature 1 and untruncated: then the engine's log-probs are those of the policy that drew
them, and no second forward pass is needed.

Shapes: `P` prompts, `G` samples a prompt.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from octavo import heap, rundir
from octavo.data.batch import Batch
from octavo.errors import ConfigError, TrainingError
from octavo.losses.policy import PolicyKind, completion_token_weight
from octavo.model.transformer import Transformer
from octavo.rundir import StageDir
from octavo.tasks.types import Completer, Completion, CompletionRequest, Problem, Rollout, SamplingParams, Split
from octavo.train.advantages import group_advantages
from octavo.train.progress import Observer
from octavo.train.rollout_config import RolloutConfig
from octavo.train.rollout_metrics import rollout_metrics
from octavo.train.samples import Sample, pack_samples, with_reference
from octavo.world import World, derive_seed


class Problems(Protocol):
    """Where problems come from: a Task or a TaskMixture."""

    def problem(self, split: Split, seed: int, index: int) -> Problem: ...


Score = Callable[[Sequence[tuple[Problem, Completion]]], list[Rollout]]
"""Grades and rewards completions, in order."""


@dataclass(frozen=True)
class Group:
    """All completions of one problem."""

    rollouts: tuple[Rollout, ...]
    advantages: tuple[float, ...]
    tied: bool


class RolloutStream:
    """The stream of GRPO: an iterator over optimizer steps that samples whenever it has no micro-batches left.

    Raises ConfigError for several updates a rollout on several ranks, and TrainingError when there has been nothing to
    learn from for `tied_limit` rollouts.
    """

    def __init__(
        self,
        problems: Problems,
        completer: Completer,
        score: Score,
        encode: Callable[[Problem], Sequence[int]],
        config: RolloutConfig,
        kind: PolicyKind,
        world: World,
        stage: StageDir,
        seed: int,
        observer: Observer,
        reference: Transformer | None = None,
    ) -> None:
        if config.updates_per_rollout > 1 and world.size > 1:
            # What is left of a rollout stands in the checkpoint, which holds one rank's stream.
            raise ConfigError(f"updates_per_rollout must be 1 on {world.size} ranks, got {config.updates_per_rollout}")
        self._problems, self._completer, self._score, self._encode = problems, completer, score, encode
        self._config, self._world, self._stage, self._seed = config, world, stage, seed
        self._observer, self._reference = observer, reference
        self._kind: PolicyKind = kind
        self._cursor = 0
        self._step = 0
        self._tied_in_a_row = 0
        self._pending: list[list[Batch]] = []
        self._metrics: dict[str, float] = {}
        self.generated_tokens = 0
        """Completion tokens drawn so far, over all ranks, including earlier pieces of a resumed run."""

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        if not self._pending:
            self._pending = self._roll_out()
        self._step += 1
        return self._pending.pop(0)

    def metrics(self) -> dict[str, float]:
        """Of the rollout that the last step came from."""
        return self._metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "cursor": self._cursor,
            "step": self._step,
            "tied_in_a_row": self._tied_in_a_row,
            "generated_tokens": self.generated_tokens,
            "metrics": self._metrics,
            "pending": [[_to_dict(batch) for batch in batches] for batches in self._pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cursor, self._step, self._tied_in_a_row = state["cursor"], state["step"], state["tied_in_a_row"]
        self.generated_tokens, self._metrics = state["generated_tokens"], state["metrics"]
        self._pending = [[Batch(**batch) for batch in batches] for batches in state["pending"]]

    def _roll_out(self) -> list[list[Batch]]:
        """Sample until there are enough groups to learn from or patience ends; one list of micro-batches an update."""
        started = time.perf_counter()
        sampled: list[Group] = []
        useful: list[Group] = []
        missing = self._config.prompts_per_rollout
        for _ in range(1 + self._config.max_resamples):
            groups = self._sample(missing)
            sampled += groups
            useful += [group for group in groups if not group.tied]
            missing = self._config.prompts_per_rollout - self._over_ranks(len(useful))
            if not missing:
                break
        self._metrics = rollout_metrics([rollout for group in sampled for rollout in group.rollouts], self._world)
        tied = sum(group.tied for group in sampled)
        self._metrics[rundir.TIED_GROUPS] = self._over_ranks(tied) / self._over_ranks(len(sampled))
        self._metrics["sampling_seconds"] = time.perf_counter() - started
        self.generated_tokens += self._over_ranks(
            sum(len(rollout.completion.ids) for group in sampled for rollout in group.rollouts)
        )
        self._log(sampled)
        self._watch_ties(nothing_useful=missing == self._config.prompts_per_rollout)
        updates = self._config.updates_per_rollout
        return [self._micro_batches(useful[update::updates]) for update in range(updates)]

    def _sample(self, problems: int) -> list[Group]:
        """This rank's groups of the next so many problems."""
        config = self._config
        indices = range(self._cursor, self._cursor + problems)
        mine = [index for index in indices if index % self._world.size == self._world.rank]
        self._cursor += problems
        asked = [self._problems.problem("train", self._seed, index) for index in mine]
        requests = [
            CompletionRequest(
                prompt_ids=tuple(self._encode(problem)),
                params=SamplingParams(config.max_completion_tokens, seed=derive_seed(self._seed, "rollout", index)),
                samples=config.samples_per_prompt,
            )
            for index, problem in zip(mine, asked, strict=True)
        ]
        if not requests:
            return []
        with heap.tidied():
            answered = self._completer.complete(requests)
        each = [
            (problem, completion)
            for problem, completions in zip(asked, answered, strict=True)
            for completion in completions
        ]
        scored = iter([self._charge(rollout) for rollout in self._score(each)])
        graded = [tuple(itertools.islice(scored, len(completions))) for completions in answered]
        advantages_PG, tied_P = group_advantages(
            torch.tensor([[rollout.reward for rollout in rollouts] for rollouts in graded]),
            torch.tensor([[rollout.grade.scored for rollout in rollouts] for rollouts in graded]),
            scale_by_std=self._kind != "dr_grpo",
            tie_tolerance=config.tie_tolerance,
        )
        return [
            Group(rollouts, tuple(advantages), tied)
            for rollouts, advantages, tied in zip(graded, advantages_PG.tolist(), tied_P.tolist(), strict=True)
        ]

    def _charge(self, rollout: Rollout) -> Rollout:
        """Add the penalty for length, if there is one."""
        config = self._config
        if not config.overlong_tokens:
            return rollout
        free = config.max_completion_tokens - config.overlong_tokens
        over = max(0, len(rollout.completion.ids) - free) / config.overlong_tokens
        return replace(rollout, rewards={**rollout.rewards, "overlong": -config.overlong_penalty * over})

    def _micro_batches(self, groups: Sequence[Group]) -> list[Batch]:
        config = self._config
        samples = [
            Sample(
                rollout.completion,
                advantage,
                completion_token_weight(self._kind, len(rollout.completion.ids), config.max_completion_tokens),
            )
            for group in groups
            for rollout, advantage in zip(group.rollouts, group.advantages, strict=True)
            if rollout.grade.scored and rollout.completion.ids
        ]
        batches = pack_samples(samples, config.micro_batch_tokens)
        return batches if self._reference is None else [with_reference(batch, self._reference) for batch in batches]

    def _watch_ties(self, nothing_useful: bool) -> None:
        self._tied_in_a_row = self._tied_in_a_row + 1 if nothing_useful else 0
        if self._tied_in_a_row == self._config.tied_limit:
            raise TrainingError(f"{self._tie_text()}; stopped")
        if self._tied_in_a_row == self._config.tied_patience and self._world.is_main:
            self._observer.on_warning(self._tie_text())

    def _tie_text(self) -> str:
        reward = self._metrics[rundir.REWARD]
        return (
            f"{self._stage.path.name}: every group tied for {self._tied_in_a_row} rollouts (mean reward {reward:.3g}), "
            "so there was nothing to learn from; try easier or harder problems, more samples_per_prompt, or a longer "
            "cold start"
        )

    def _log(self, groups: Sequence[Group]) -> None:
        """The first completion of each of the first groups."""
        if self._world.is_main:
            shown = groups[: self._config.logged_rollouts]
            rundir.append_jsonl(self._stage.rollouts, [_row(self._step + 1, group) for group in shown])

    def _over_ranks(self, count: int) -> int:
        return int(self._world.all_reduce_(torch.tensor(count, device=self._world.device)))


def _row(step: int, group: Group) -> dict[str, Any]:
    rollout = group.rollouts[0]
    return {
        "step": step,
        "problem": rollout.problem.id,
        "task": rollout.problem.task,
        "question": rollout.problem.question,
        "gold": rollout.problem.answer,
        "completion": rollout.completion.text,
        "tokens": len(rollout.completion.ids),
        "finish_reason": rollout.completion.finish_reason,
        "status": str(rollout.grade.status),
        "detail": rollout.grade.detail,
        "reward": rollout.reward,
        "rewards": dict(rollout.rewards),
        "advantage": group.advantages[0],
        "group_rewards": [sibling.reward for sibling in group.rollouts],
    }


def _to_dict(batch: Batch) -> dict[str, Any]:
    return {name: tensor for name, tensor in vars(batch).items() if tensor is not None}
