import math

import torch
from torch.nn import functional as F

from octavo.losses.cross_entropy import cross_entropy


def test_value_by_hand():
    # Every row has the probabilities 1/4 and 3/4.
    loss = cross_entropy(
        torch.ones(3, 1), torch.tensor([[0.0], [math.log(3)]]), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 0.0])
    )
    torch.testing.assert_close(loss.loss_sum, torch.tensor(math.log(4) + 2 * math.log(4 / 3)))
    torch.testing.assert_close(loss.sums["correct_probability"], torch.tensor(0.25 + 2 * 0.75))


def test_equals_torch_and_leaves_out_rows_without_weight():
    torch.manual_seed(0)
    hidden_RD, weight_VD = torch.randn(20, 6, requires_grad=True), torch.randn(11, 6, requires_grad=True)
    targets_R, weights_R = torch.randint(11, (20,)), torch.rand(20) * (torch.rand(20) > 0.5)
    each_R = F.cross_entropy(hidden_RD @ weight_VD.T, targets_R, reduction="none")
    expected = torch.autograd.grad((each_R * weights_R).sum(), (hidden_RD, weight_VD))
    loss_sum = cross_entropy(hidden_RD, weight_VD, targets_R, weights_R).loss_sum
    torch.testing.assert_close(loss_sum, (each_R * weights_R).sum())
    torch.testing.assert_close(torch.autograd.grad(loss_sum, (hidden_RD, weight_VD)), expected)


def test_no_row_with_weight_gives_zero_with_a_gradient():
    hidden_RD = torch.randn(4, 3, requires_grad=True)
    loss_sum = cross_entropy(hidden_RD, torch.randn(5, 3), torch.zeros(4, dtype=torch.long), torch.zeros(4)).loss_sum
    loss_sum.backward()
    assert loss_sum.item() == 0.0
    torch.testing.assert_close(hidden_RD.grad, torch.zeros(4, 3))
