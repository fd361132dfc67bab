"""Sampled completions -> micro-batches for the loop.

Each micro-batch is one row of whole documents (prompt and completion), without padding; completions of similar length
go together, so that attention, which gathers documents of similar length, pads little.

Shapes: `B` = 1 row, `T` tokens of a micro-batch.
"""

from __future__ import annotations

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

    @property
    def tokens(self) -> int:
        """Positions that the model reads: all tokens but the last."""
        return len(self.completion.prompt_ids) + len(self.completion.ids) - 1


def pack_samples(samples: Iterable[Sample], micro_batch_tokens: int) -> list[Batch]:
    """Micro-batches of at most `micro_batch_tokens` tokens each; a longer sample is one by itself."""
    ordered = sorted(samples, key=lambda sample: sample.tokens)
    return [_collate(chunk) for chunk in _chunks(ordered, micro_batch_tokens)]


def _chunks(samples: Sequence[Sample], most: int) -> Iterator[list[Sample]]:
    chunk: list[Sample] = []
    tokens = 0
    for sample in samples:
        if chunk and tokens + sample.tokens > most:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(sample)
        tokens += sample.tokens
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
    for sample in samples:
        completion = sample.completion
        ids = (*completion.prompt_ids, *completion.ids)
        prompt = [0.0] * (len(completion.prompt_ids) - 1)
        inputs += ids[:-1]
        targets += ids[1:]
        positions += range(sample.tokens)
        weights += prompt + [sample.token_weight] * len(completion.ids)
        advantages += prompt + [sample.advantage] * len(completion.ids)
        logprobs += prompt + list(completion.logprobs)
    return Batch(
        inputs_BT=torch.tensor([inputs]),
        targets_BT=torch.tensor([targets]),
        weights_BT=torch.tensor([weights]),
        positions_BT=torch.tensor([positions]),
        advantages_BT=torch.tensor([advantages]),
        behaviour_logprobs_BT=torch.tensor([logprobs]),
    )


def completions_in(batch: Batch) -> float:
    """How many completions the batch holds: runs of weight, each inside one document."""
    counts_BT = batch.weights_BT > 0
    before_BT = counts_BT.roll(1, dims=1) & (batch.positions_BT > 0)
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
