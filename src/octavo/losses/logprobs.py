"""Hidden states -> log-probabilities of given tokens, without the logits ever existing whole.

The one place where SFT, RL, distillation and scoring turn hidden states into log-probs. The product with the head
runs in chunks of rows over one reused buffer, and a loss takes the gradients of a chunk while it is there, so memory is
O(chunk x V) and not O(R x V), and nothing is computed twice.

Shapes: `R` flat tokens, `C` tokens of one chunk, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from octavo.native import training

# A chunk is at least MIN rows (with fewer the matrix product slows down), and more while its logits fit into the cache.
_MIN_CHUNK_TOKENS = 512
_CACHE_LOGITS = 1 << 20


Objective = Callable[[slice, Tensor], Tensor]
"""(which rows, their log-probs [C], nats) -> their part of a sum that is to be minimized, differentiable."""


def token_logprobs(
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    targets_R: Int[Tensor, "R"],
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> Float[Tensor, "R"]:
    """log softmax(hidden weight^T / temperature)[target] of each row, nats, without gradients.

    Rows that do not count should be left out by the caller: the cost is proportional to R. `chunk_tokens` None picks
    a chunk by V.
    """
    with torch.no_grad():
        chunks = logits_in_chunks(hidden_RD, weight_VD, temperature, chunk_tokens)
        each = [_softmax_(logits_CV, targets_R[span], with_entropy=False)[0] for span, logits_CV in chunks]
    return torch.cat(each) if each else hidden_RD.new_zeros(0, dtype=accumulation_dtype(hidden_RD))


def token_objective(
    objective: Objective,
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    targets_R: Int[Tensor, "R"],
    with_entropy: bool = False,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "R"], Float[Tensor, "E"]]:
    """A sum over tokens of functions of their log-probs, with gradients to hidden and weight; the log-probs; and the
    entropy of each row's distribution (nats; empty unless asked for), both without gradients.

    The gradients are computed in the forward pass, while a chunk's logits are at hand, for the price of three products
    with the head; so the backward pass can be gone through once only. Arguments else as in `token_logprobs`.
    """
    wanted = torch.is_grad_enabled() and (hidden_RD.requires_grad or weight_VD.requires_grad)
    return _TokenObjective.apply(
        hidden_RD, weight_VD, targets_R, objective, with_entropy, temperature, chunk_tokens, wanted
    )


class _TokenObjective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_RD: Tensor,
        weight_VD: Tensor,
        targets_R: Tensor,
        objective: Objective,
        with_entropy: bool,
        temperature: float,
        chunk_tokens: int | None,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        total = hidden_RD.new_zeros((), dtype=accumulation_dtype(hidden_RD))
        logprobs_R, entropy_R = total.new_empty(len(hidden_RD)), total.new_empty(len(hidden_RD) * with_entropy)
        ctx.gradient = HeadGradient(hidden_RD, weight_VD, ctx.needs_input_grad) if wanted else None
        for span, logits_CV in logits_in_chunks(hidden_RD, weight_VD, temperature, chunk_tokens):
            logprobs_C, entropy_C = _softmax_(logits_CV, targets_R[span], with_entropy)
            logprobs_R[span] = logprobs_C
            if entropy_C is not None:
                entropy_R[span] = entropy_C
            with torch.enable_grad():
                part = objective(span, logprobs_C.requires_grad_())
            total += part.detach()
            if ctx.gradient is not None:
                (slope_C,) = torch.autograd.grad(part, logprobs_C)
                # d logprob / d logits = (onehot(target) - softmax) / temperature
                slope_C = slope_C / temperature
                grad_CV = logits_CV.mul_(-slope_C[:, None])
                ctx.gradient.add(span, grad_CV.scatter_add_(1, targets_R[span, None], slope_C[:, None]))
        ctx.mark_non_differentiable(logprobs_R, entropy_R)
        return total, logprobs_R, entropy_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("token_objective: the backward pass can be gone through once only")
        hidden_RD = None if gradient.hidden_RD is None else gradient.hidden_RD.mul_(upstream)
        return hidden_RD, gradient.weight_VD(upstream), *[None] * 6


def _softmax_(logits_CV: Tensor, targets_C: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Turn logits into probabilities, in place; return the log-probs of the targets, and the entropies if asked for."""
    if training.serves(logits_CV):
        return training.softmax_(logits_CV, targets_C, with_entropy)
    logits_CV.sub_(logits_CV.amax(-1, keepdim=True))
    target_C = logits_CV.gather(1, targets_C[:, None]).squeeze(1)
    shifted_CV = logits_CV.clone() if with_entropy else None
    normalizer_C = logits_CV.exp_().sum(-1)
    logits_CV.div_(normalizer_C[:, None])
    # H = log Z - sum(p x), with p = exp(x) / Z.
    entropy_C = None if shifted_CV is None else normalizer_C.log() - shifted_CV.mul_(logits_CV).sum(-1)
    return target_C - normalizer_C.log_(), entropy_C


def logits_in_chunks(
    hidden_RD: Tensor, weight_VD: Tensor, temperature: float, chunk_tokens: int | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, logits_CV / temperature). The logits may be overwritten, and are gone when the next chunk comes."""
    rows, vocabulary = hidden_RD.shape[0], weight_VD.shape[0]
    chunk = min(rows, chunk_tokens or max(_MIN_CHUNK_TOKENS, _CACHE_LOGITS // vocabulary))
    # Fresh memory for each chunk would cost as much as the product itself: page faults.
    buffer_CV = torch.empty(chunk, vocabulary, dtype=hidden_RD.dtype, device=hidden_RD.device)
    for start in range(0, rows, max(chunk, 1)):
        span = slice(start, min(start + chunk, rows))
        logits_CV = buffer_CV[: span.stop - start]
        torch.mm(hidden_RD[span], weight_VD.t(), out=logits_CV)
        logits_CV = logits_CV.to(accumulation_dtype(hidden_RD))
        yield span, logits_CV if temperature == 1.0 else logits_CV.div_(temperature)


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """At least float32: sums over a vocabulary are never taken in half precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


class HeadGradient:
    """Gathers the gradients of logits = hidden weight^T chunk by chunk, for those of the two that need one.

    That of a vocabulary's weight is larger than all else of a small step, so it is not made twice. Where a single chunk
    has fewer rows than the weight has columns, the gradient of its logits is kept, which is smaller; and the weight's
    is added to `weight.grad` in place, where there is one.
    """

    def __init__(self, hidden_RD: Tensor, weight_VD: Tensor, needed: tuple[bool, ...]) -> None:
        self._hidden_RD, self._weight_VD, self._needs_weight = hidden_RD, weight_VD, needed[1]
        self.hidden_RD = torch.empty_like(hidden_RD) if needed[0] else None
        self._logits_RV: Tensor | None = None
        self._sum_VD: Tensor | None = None

    def add(self, span: slice, grad_CV: Tensor) -> None:
        """Take the gradient of a chunk's logits, which may be kept: nobody else may write on it."""
        grad_CV = grad_CV.to(self._hidden_RD.dtype)
        if self.hidden_RD is not None:
            torch.mm(grad_CV, self._weight_VD, out=self.hidden_RD[span])
        if not self._needs_weight:
            return
        rows, width = self._hidden_RD.shape
        if len(grad_CV) == rows <= width:
            self._logits_RV = grad_CV
            return
        if self._sum_VD is None:
            self._sum_VD = torch.zeros_like(self._weight_VD)
        self._sum_VD.addmm_(grad_CV.t(), self._hidden_RD[span])

    def weight_VD(self, upstream: Tensor | float = 1.0) -> Tensor | None:
        """The weight's gradient times `upstream`; None if it needs none, or has it already in its `grad`."""
        if not self._needs_weight:
            return None
        if self._logits_RV is None:
            return torch.zeros_like(self._weight_VD) if self._sum_VD is None else self._sum_VD.mul_(upstream)
        logits_VR = self._logits_RV.mul_(upstream).t()
        gradient_VD = _gradient_so_far(self._weight_VD)
        if gradient_VD is None:
            return logits_VR @ self._hidden_RD
        gradient_VD.addmm_(logits_VR, self._hidden_RD)
        return None


def _gradient_so_far(weight: Tensor) -> Tensor | None:
    """The weight's `grad`, if adding to it is all that autograd would do with another gradient."""
    watched = weight._backward_hooks or weight._post_accumulate_grad_hooks
    return weight.grad if weight.is_leaf and not watched else None
