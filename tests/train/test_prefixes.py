"""Documents that begin alike share their beginning: the same loss and gradient from fewer tokens."""

import torch
from tiny_training import DENSE, tiny_model

from octavo.data.batch import Batch
from octavo.losses.cross_entropy import cross_entropy
from octavo.train.prefixes import share_prefixes

# (ids, how many of its first tokens are context); the last of the ids is only predicted.
DOCUMENTS = [
    ([5, 6, 7, 8, 9, 1, 2], 5),
    ([5, 6, 7, 8, 10, 3, 4, 2], 5),
    ([5, 6, 7, 8, 9, 1, 2], 5),  # a copy
    ([5, 6, 7, 8, 9, 1, 11], 2),  # learned from its third token on: no more is shared
    ([12, 13, 14, 15, 1, 2], 4),  # another beginning
    ([12, 13, 14, 15, 16, 2], 5),
    ([5, 6, 3], 1),  # too little in common
]


def packed(documents) -> Batch:
    """One row, with padding at its end."""
    inputs, targets, weights, positions = [], [], [], []
    for ids, context in [*documents, ([0] * 6, 6)]:
        inputs += ids[:-1]
        targets += ids[1:]
        weights += [float(place + 1 >= context) for place in range(len(ids) - 1)]
        positions += range(len(ids) - 1)
    return Batch(*(torch.tensor([column]) for column in (inputs, targets, weights, positions)))


def loss_and_gradients(batch: Batch):
    model = tiny_model(DENSE)
    hidden_RD = model(batch.inputs_BT, batch.positions_BT).flatten(0, 1)
    loss = cross_entropy(hidden_RD, model.head_weight_VD, batch.targets_BT.flatten(), batch.weights_BT.flatten())
    loss.loss_sum.backward()
    return loss.loss_sum, [parameter.grad for parameter in model.parameters()]


def test_the_same_loss_and_gradient_from_fewer_tokens():
    whole = packed(DOCUMENTS)
    shared = share_prefixes(whole)
    first, fourth = [*range(6), *range(4, 7), *range(4, 6)], [*range(6)]
    assert shared.positions_BT.tolist() == [[*first, *fourth, *range(5), 4, 0, 1]]
    assert shared.weight == whole.weight
    (loss, gradients), (expected, wanted) = loss_and_gradients(shared), loss_and_gradients(whole)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_what_is_learned_is_never_shared():
    documents = [([5, 6, 7, 8, 9, 1], 1), ([5, 6, 7, 8, 9, 1], 1)]
    assert share_prefixes(packed(documents)).tokens == 10


def test_nothing_to_learn_is_left_as_it_is():
    batch = packed([])
    assert share_prefixes(batch) is batch
