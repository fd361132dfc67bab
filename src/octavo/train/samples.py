"""Sampled completions -> micro-batches for the loop.

Each micro-batch is one row without padding. The completions of one prompt are branches that share it (see
model/layout.py), so that the prompt is computed once for its group in the loss as it was in the engine. A branch begins
with the prompt's last token, which predicts the completion's first.

Shapes: `B` = 1 row, `T` tokens of a micro-batch.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from octavo.data.batch import Batch
from octavo.losses.logprobs import token_logprobs
from octavo.model.transformer import Transformer
from octavo.tasks.types import Completion


@dataclass(frozen=True)
class Sample:
    """A completion with its advantage and the loss weight of each of its tokens."""

    completion: Completion
    advantage: float
    token_weight: float


def pack_samples(samples: Iterable[Sample], micro_batch_tokens: int) -> list[Batch]:
    """Micro-batches of at most `micro_batch_tokens` tokens each; a longer sample is one by itself."""
    groups: dict[tuple[int, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.completion.prompt_ids].append(sample)
    # Groups of similar length together: attention gathers sequences of similar length into one rectangle.
    by_length = sorted(groups.values(), key=lambda group: max(map(_tokens_alone, group)))
    ordered = [sample for group in by_length for sample in sorted(group, key=_tokens_alone)]
    return [_collate(chunk) for chunk in _chunks(ordered, micro_batch_tokens)]


def _tokens_alone(sample: Sample) -> int:
    """Positions that the model reads of one sample by itself: all tokens but the last."""
    return len(sample.completion.prompt_ids) + len(sample.completion.ids) - 1


def _chunks(samples: Sequence[Sample], most: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    tokens = 0
    for sample in samples:
        shared = bool(chunk) and chunk[-1].completion.prompt_ids == sample.completion.prompt_ids
        added = len(sample.completion.ids) if shared else _tokens_alone(sample)
        if chunk and tokens + added > most:
            yield chunk
            chunk, tokens, added = [], 0, _tokens_alone(sample)
        chunk.append(sample)
        tokens += added
    if chunk:
        yield chunk


def _collate(samples: Sequence[Sample]) -> Batch:
    """Only predictions of completion tokens have weight, advantage and log-prob; the prompt's have 0."""
    inputs: list[int] = []
    targets: list[int] = []
    positions: list[int] = []
    weights: list[float] = []
    advantages: list[float] = []
    logprobs: list[float] = []
    for prompt, group in itertools.groupby(samples, key=lambda sample: sample.completion.prompt_ids):
        shared = len(prompt) - 1
        nothing = [0.0] * shared
        inputs += prompt[:-1]
        targets += prompt[1:]
        positions += range(shared)
        weights += nothing
        advantages += nothing
        logprobs += nothing
        for sample in group:
            ids = sample.completion.ids
            inputs += (prompt[-1], *ids[:-1])
            targets += ids
            positions += range(shared, shared + len(ids))
            weights += [sample.token_weight] * len(ids)
            advantages += [sample.advantage] * len(ids)
            logprobs += sample.completion.logprobs
    return Batch(
        inputs_BT=torch.tensor([inputs]),
        targets_BT=torch.tensor([targets]),
        weights_BT=torch.tensor([weights]),
        positions_BT=torch.tensor([positions]),
        advantages_BT=torch.tensor([advantages]),
        behaviour_logprobs_BT=torch.tensor([logprobs]),
    )


def completions_in(batch: Batch) -> float:
    """How many completions the batch holds: runs of weight, each inside one document or branch."""
    counts_BT = batch.weights_BT > 0
    goes_on_BT = batch.positions_BT == batch.positions_BT.roll(1, dims=1) + 1
    before_BT = counts_BT.roll(1, dims=1) & goes_on_BT
    return float((counts_BT & ~before_BT).sum())


@torch.no_grad()
def with_reference(batch: Batch, reference: Transformer) -> Batch:
    """The batch with log-probs (nats) of its targets under another model, 0 where the weight is 0."""
    rows = batch.weights_BT.flatten().nonzero().squeeze(1)
    hidden_BTD = reference(batch.inputs_BT, batch.positions_BT)
    logprobs_R = token_logprobs(
        hidden_BTD.flatten(0, 1)[rows], reference.head_weight_VD, batch.targets_BT.flatten()[rows]
    )
    logprobs_BT = torch.zeros_like(batch.weights_BT)
    logprobs_BT.view(-1)[rows] = logprobs_R.to(logprobs_BT.dtype)
    return replace(batch, reference_logprobs_BT=logprobs_BT)
