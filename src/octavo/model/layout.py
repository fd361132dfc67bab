"""Where the documents of a packed batch lie: attention runs on each apart, everything else on all at once.

Packing mixes documents of many lengths in one row. A mask over the whole row would pay for every pair of tokens;
instead attention gathers documents of similar length into a padded rectangle, runs causally, and puts the results
back. Padding stands at the end, where a causal query of the document never looks.

(Where there are kernels for it, they do without rectangles: model/fused.py.)

The positions tell the documents. One starts at each 0; where they jump to p > 0, a *branch* starts: it continues the
first p tokens of the latest document. So completions of one prompt share it: its tokens go once through everything but
attention, which gathers them in front of each branch.

Shapes: `R` flat tokens of the batch, `S` documents and branches (sequences), `L` longest length in a bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# A bucket holds documents whose lengths differ by at most this factor: little padding, few calls.
_SPREAD = 1.5


@dataclass(frozen=True)
class Bucket:
    """Documents of similar length. `gather_SL` are flat token indices; padding repeats the document's first token."""

    gather_SL: Tensor
    repeats: bool
    """Whether a token occurs more than once: as padding, or in front of branches."""


@dataclass(frozen=True)
class Layout:
    """Documents of a packed batch of R tokens."""

    document_R: Tensor
    """Number of the document or branch that each token belongs to."""
    spans_S3: Tensor
    """int64, on the CPU: of each sequence its first token, how many tokens are its own, and how many it borrows."""
    ends_G: Tensor
    """int64, on the CPU: where the sequences of each group end; a document and its branches are a group."""

    @staticmethod
    def of(positions_BT: Tensor) -> Layout:
        """Read the layout off the positions; each row starts with a document."""
        assert bool((positions_BT[:, 0] == 0).all()), "each row must begin with a document (position 0)"
        positions_R = positions_BT.reshape(-1).cpu()
        starts_S = (torch.diff(positions_R, prepend=positions_R.new_tensor([-2])) != 1).nonzero().squeeze(1)
        own_S = torch.diff(starts_S, append=torch.tensor([len(positions_R)]))
        borrowed_S = positions_R[starts_S]
        document_R = torch.repeat_interleave(torch.arange(len(starts_S)), own_S)
        ends_G = torch.cat(((borrowed_S == 0).nonzero().squeeze(1)[1:], torch.tensor([len(starts_S)])))
        return Layout(document_R.to(positions_BT.device), torch.stack((starts_S, own_S, borrowed_S), dim=1), ends_G)

    @property
    def documents(self) -> int:
        """How many documents and branches there are."""
        return len(self.spans_S3)

    @cached_property
    def _rectangles(self) -> tuple[tuple[Bucket, ...], Tensor]:
        """All buckets, and where each token stands when they are flattened and joined, [R]."""
        starts_S, own_S, borrowed_S = self.spans_S3.unbind(1)
        trunks_S = starts_S.where(borrowed_S == 0, 0).cummax(0).values
        lengths_S, device = borrowed_S + own_S, self.document_R.device
        buckets, place_R, offset = [], torch.empty(len(self.document_R), dtype=torch.int64), 0
        for chosen in _buckets(lengths_S):
            starts, trunks, borrowed, lengths = (x[chosen, None] for x in (starts_S, trunks_S, borrowed_S, lengths_S))
            steps_L = torch.arange(int(lengths.max()))
            own_SL = (steps_L >= borrowed) & (steps_L < lengths)
            gather_SL = torch.where(steps_L < borrowed, trunks + steps_L, starts + (steps_L - borrowed) * own_SL)
            slots_SL = offset + torch.arange(gather_SL.numel()).view_as(gather_SL)
            place_R[gather_SL[own_SL]] = slots_SL[own_SL]
            buckets.append(Bucket(gather_SL.to(device), repeats=not bool(own_SL.all())))
            offset += gather_SL.numel()
        return tuple(buckets), place_R.to(device)

    def per_document(self, attend: Callable[..., Tensor], *tensors_R: Tensor) -> Tensor:
        """Apply `attend` to each bucket: tensors [R, ...] reach it as [S, L, ...], and it returns [S, L, ...]."""
        buckets, place_R = self._rectangles
        first = buckets[0]
        if len(buckets) == 1 and not first.repeats:
            # Documents of one length lie as they should: nothing to gather, nothing to put back.
            return attend(*(x_R.unflatten(0, first.gather_SL.shape) for x_R in tensors_R)).flatten(0, 1)
        outputs = []
        for bucket in buckets:
            gathered = [_Gather.apply(x_R, bucket.gather_SL, bucket.repeats) for x_R in tensors_R]
            outputs.append(attend(*gathered).flatten(0, 1))
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined.index_select(0, place_R)


class _Gather(torch.autograd.Function):
    """x[index] whose backward accumulates only where a token was gathered more than once."""

    @staticmethod
    def forward(ctx, x_R: Tensor, index_SL: Tensor, repeats: bool) -> Tensor:
        ctx.save_for_backward(index_SL)
        ctx.rows, ctx.repeats = x_R.shape[0], repeats
        return x_R.index_select(0, index_SL.flatten()).unflatten(0, index_SL.shape)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        (index_SL,) = ctx.saved_tensors
        gradient = gradients[0].flatten(0, 1)
        result = gradient.new_zeros(ctx.rows, *gradient.shape[1:])
        if ctx.repeats:
            return result.index_add_(0, index_SL.flatten(), gradient), None, None
        return result.index_copy_(0, index_SL.flatten(), gradient), None, None


def _buckets(lengths_S: Tensor) -> list[Tensor]:
    """Indices of documents, split so that the longest of a bucket is at most _SPREAD times the shortest."""
    order = lengths_S.argsort(stable=True)
    buckets: list[list[int]] = []
    limit = 0.0
    for index, length in zip(order.tolist(), lengths_S[order].tolist(), strict=True):
        if not buckets or length > limit:
            buckets.append([])
            limit = length * _SPREAD
        buckets[-1].append(index)
    return [torch.tensor(bucket) for bucket in buckets]
