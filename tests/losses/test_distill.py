import pytest
import torch
from torch.nn import functional as F

from octavo.losses.distill import full_kl, sampled_reverse_kl


def models(rows: int = 9, vocabulary: int = 7):
    torch.manual_seed(0)
    student = (
        torch.randn(rows, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(vocabulary, 4, dtype=torch.float64, requires_grad=True),
    )
    teacher = torch.randn(rows, 6, dtype=torch.float64), torch.randn(vocabulary, 6, dtype=torch.float64)
    return student, teacher, torch.rand(rows, dtype=torch.float64)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("chunk", [2, 9, None])
def test_full_kl_and_its_gradients_are_the_plain_formulas(divergence, chunk):
    student, teacher, weights_R = models()
    student_RV = (student[0] @ student[1].T).log_softmax(-1)
    teacher_RV = (teacher[0] @ teacher[1].T).log_softmax(-1)
    # F.kl_div(q, p) is KL(p || q).
    p_RV, q_RV = (teacher_RV, student_RV) if divergence == "forward_kl" else (student_RV, teacher_RV)
    kl_R = F.kl_div(q_RV, p_RV, log_target=True, reduction="none").sum(-1)
    expected = torch.autograd.grad((weights_R * kl_R).sum(), student)
    loss = full_kl(divergence, *student, *teacher, weights_R, chunk)
    torch.testing.assert_close(loss.loss_sum, (weights_R * kl_R).sum())
    torch.testing.assert_close(torch.autograd.grad(loss.loss_sum, student), expected)
    assert loss.sums[divergence] == loss.loss_sum


def test_full_kl_to_oneself_is_zero():
    student, _, weights_R = models()
    loss = full_kl("reverse_kl", *student, student[0].detach(), student[1].detach(), weights_R)
    torch.testing.assert_close(loss.loss_sum, torch.zeros((), dtype=torch.float64))


def test_sampled_gradient_is_the_full_one_in_expectation():
    """Weighting every token of the vocabulary by its probability gives the exact reverse KL and its gradient."""
    logits_V = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    teacher_V = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).log_softmax(0)
    student_V = logits_V.log_softmax(0)
    exact = (student_V.exp() * (student_V - teacher_V)).sum()
    (expected,) = torch.autograd.grad(exact, logits_V)
    student_V = logits_V.log_softmax(0)
    loss = sampled_reverse_kl(student_V, student_V.detach(), teacher_V, student_V.detach().exp())
    (gradient,) = torch.autograd.grad(loss.loss_sum, logits_V)
    torch.testing.assert_close(loss.sums["reverse_kl"], exact.detach())
    torch.testing.assert_close(gradient, expected)
