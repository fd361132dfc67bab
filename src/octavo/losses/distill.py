"""Distillation losses: from a teacher's log-probs of sampled tokens, or from its whole distribution (chunked).

Distillation on a teacher's samples is plain SFT: `cross_entropy`. These two learn from a teacher that is at hand.

Sources: reverse KL on the student's own samples: Agarwal et al. 2024 (GKD, arXiv 2306.13649), Gu et al. 2024
(MiniLLM, 2306.08543).

Shapes: `R` flat tokens, `C` tokens of one chunk, `D` width of the student, `H` width of the teacher, `V` vocabulary
(shared).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from octavo.losses.logprobs import HeadGradient, accumulation_dtype, logits_in_chunks
from octavo.losses.loss_sum import LossSum

Divergence = Literal["forward_kl", "reverse_kl"]


def sampled_reverse_kl(
    logprobs_R: Float[Tensor, "R"],
    behaviour_logprobs_R: Float[Tensor, "R"],
    teacher_logprobs_R: Float[Tensor, "R"],
    weights_R: Float[Tensor, "R"],
) -> LossSum:
    """Policy gradient of KL(student || teacher) on tokens that the student drew: needs the teacher's log-prob of
    those only.

    Each token's advantage is log p_teacher - log p_student, taken as a constant, with the importance weight p /
    p_behaviour; the effect of a token on later ones is left out (as discount 0). `loss_sum` has the right gradient,
    not the value of the KL: that is the statistic `reverse_kl`.
    """
    advantages_R = (teacher_logprobs_R - logprobs_R).detach()
    ratio_R = (logprobs_R - behaviour_logprobs_R).exp()
    return LossSum(
        loss_sum=-(weights_R * ratio_R * advantages_R).sum(),
        sums={"reverse_kl": -(weights_R * ratio_R.detach() * advantages_R).sum()},
    )


def full_kl(
    divergence: Divergence,
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    teacher_hidden_RH: Float[Tensor, "R H"],
    teacher_weight_VH: Float[Tensor, "V H"],
    weights_R: Float[Tensor, "R"],
    chunk_tokens: int | None = None,
) -> LossSum:
    """Sum of weight x KL over the whole vocabulary; [R, V] never exists. The teacher gets no gradient.

    forward_kl: KL(teacher || student), covers everything the teacher might say; reverse_kl: KL(student || teacher),
    keeps to what the teacher finds likely.
    """
    kl_R = _FullKL.apply(
        hidden_RD, weight_VD, teacher_hidden_RH, teacher_weight_VH, divergence == "forward_kl", chunk_tokens
    )
    loss_sum = (weights_R * kl_R).sum()
    return LossSum(loss_sum, sums={divergence: loss_sum.detach()})


class _FullKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_RD: Tensor,
        weight_VD: Tensor,
        teacher_hidden_RH: Tensor,
        teacher_weight_VH: Tensor,
        forward_kl: bool,
        chunk_tokens: int | None,
    ) -> Tensor:
        kl_R = torch.empty(len(hidden_RD), dtype=accumulation_dtype(hidden_RD), device=hidden_RD.device)
        ctx.save_for_backward(hidden_RD, weight_VD, teacher_hidden_RH, teacher_weight_VH, kl_R)
        ctx.forward_kl, ctx.chunk_tokens = forward_kl, chunk_tokens
        for span, student_CV, teacher_CV in _both(ctx, hidden_RD, weight_VD, teacher_hidden_RH, teacher_weight_VH):
            p_CV, q_CV = (teacher_CV, student_CV) if forward_kl else (student_CV, teacher_CV)
            kl_R[span] = (p_CV.exp() * (p_CV - q_CV)).sum(-1)
        return kl_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, ...]:
        hidden_RD, weight_VD, teacher_hidden_RH, teacher_weight_VH, kl_R = ctx.saved_tensors
        gradient = HeadGradient(hidden_RD, weight_VD, ctx.needs_input_grad)
        for span, student_CV, teacher_CV in _both(ctx, hidden_RD, weight_VD, teacher_hidden_RH, teacher_weight_VH):
            student_p_CV = student_CV.exp()
            if ctx.forward_kl:
                # d KL(t || s) / d logits = s - t
                grad_CV = student_p_CV.sub_(teacher_CV.exp_())
            else:
                # d KL(s || t) / d logits = s (log s - log t - KL)
                grad_CV = student_p_CV.mul_(student_CV.sub_(teacher_CV).sub_(kl_R[span, None]))
            gradient.add(span, grad_CV.mul_(grad_R[span, None]))
        return gradient.hidden_RD, gradient.weight_VD(), None, None, None, None


def _both(ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, teacher_hidden_RH: Tensor, teacher_weight_VH: Tensor):
    """Yield (rows, student log-probs, teacher log-probs), chunk by chunk."""
    students = logits_in_chunks(hidden_RD, weight_VD, 1.0, ctx.chunk_tokens)
    teachers = logits_in_chunks(teacher_hidden_RH, teacher_weight_VH, 1.0, ctx.chunk_tokens)
    for (span, student_CV), (_, teacher_CV) in zip(students, teachers, strict=True):
        yield span, student_CV.log_softmax(-1), teacher_CV.log_softmax(-1)
