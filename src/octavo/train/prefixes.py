"""Conversations that begin alike: what they have in common is computed once.

Questions of one kind share their beginning (the system message, the words of the task), which is often the half of a
short conversation. Documents of a packed batch become branches of one that begins as they do (see model/layout.py), as
far as nothing is learned there. The loss and its gradient stay the same; padding goes as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from octavo.data.batch import Batch

_FEWEST_SHARED = 4
"""A shorter beginning is not worth a branch."""


@dataclass
class _Trunk:
    """A document, and what branches off it: (document, tokens shared)."""

    document: slice
    branches: list[tuple[slice, int]]


def share_prefixes(batch: Batch) -> Batch:
    """The same predictions in one row, as short as it can be.

    Of batches for next-token prediction whose documents are not branches themselves. Not for models with experts: the
    load that balances them would be counted otherwise.
    """
    inputs = batch.inputs_BT.flatten().numpy()
    weights = batch.weights_BT.flatten().numpy()
    starts = (batch.positions_BT.flatten().numpy() == 0).nonzero()[0]
    trunks: list[_Trunk] = []
    for start, stop in zip(starts, [*starts[1:], len(inputs)], strict=True):
        learned = weights[start:stop].nonzero()[0]
        if not len(learned):  # padding
            continue
        document = slice(start, int(start + learned[-1] + 1))
        shared = [_common(inputs[trunk.document], inputs[document], int(learned[0])) for trunk in trunks]
        best = max(range(len(trunks)), key=shared.__getitem__, default=None)
        if best is None or shared[best] < _FEWEST_SHARED:
            trunks.append(_Trunk(document, []))
        else:
            trunks[best].branches.append((document, shared[best]))
    if not trunks:
        return batch
    pieces, positions = [], []
    for trunk in trunks:
        for document, shared in ((trunk.document, 0), *trunk.branches):
            pieces.append(np.arange(document.start + shared, document.stop))
            positions.append(np.arange(shared, document.stop - document.start))
    places = torch.from_numpy(np.concatenate(pieces))
    return Batch(
        inputs_BT=batch.inputs_BT.flatten()[places][None],
        targets_BT=batch.targets_BT.flatten()[places][None],
        weights_BT=batch.weights_BT.flatten()[places][None],
        positions_BT=torch.from_numpy(np.concatenate(positions))[None],
    )


def _common(trunk: np.ndarray, document: np.ndarray, most: int) -> int:
    """Tokens that both begin with, at most `most`."""
    length = min(len(trunk), len(document), most)
    different = (trunk[:length] != document[:length]).nonzero()[0]
    return int(different[0]) if len(different) else length
