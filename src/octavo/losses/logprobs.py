"""Hidden states -> log-probabilities of given tokens, without the logits ever existing whole.

The one place where SFT, RL, distillation and scoring turn hidden states into log-probs. The product with the head
runs in chunks of rows over one reused buffer; the backward pass computes each chunk again, so memory is O(chunk x V)
and not O(R x V).

Shapes: `R` flat tokens, `C` tokens of one chunk, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# A chunk is at least MIN rows (with fewer the matrix product slows down), and more while its logits fit into the cache.
_MIN_CHUNK_TOKENS = 512
_CACHE_LOGITS = 1 << 20


def token_logprobs(
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    targets_R: Int[Tensor, "R"],
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> Float[Tensor, "R"]:
    """log softmax(hidden weight^T / temperature)[target] of each row, nats, with gradients to hidden and weight.

    Rows that do not count should be left out by the caller: the cost is proportional to R. `chunk_tokens` None picks
    a chunk by V.
    """
    logprobs_R, _ = _TokenLogprobs.apply(hidden_RD, weight_VD, targets_R, temperature, chunk_tokens, False)
    return logprobs_R


def token_logprobs_and_entropy(
    hidden_RD: Float[Tensor, "R D"],
    weight_VD: Float[Tensor, "V D"],
    targets_R: Int[Tensor, "R"],
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """As `token_logprobs`, and from the same pass the entropy of each row's distribution (nats, without gradient)."""
    return _TokenLogprobs.apply(hidden_RD, weight_VD, targets_R, temperature, chunk_tokens, True)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_RD: Tensor,
        weight_VD: Tensor,
        targets_R: Tensor,
        temperature: float,
        chunk_tokens: int | None,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        rows = hidden_RD.shape[0]
        accumulate = accumulation_dtype(hidden_RD)
        logprobs_R = torch.empty(rows, dtype=accumulate, device=hidden_RD.device)
        entropy_R = torch.empty(rows if with_entropy else 0, dtype=accumulate, device=hidden_RD.device)
        for span, logits_CV in logits_in_chunks(hidden_RD, weight_VD, temperature, chunk_tokens):
            logits_CV.sub_(logits_CV.amax(-1, keepdim=True))
            target_C = logits_CV.gather(1, targets_R[span, None]).squeeze(1)
            if with_entropy:
                # H = log Z - sum(p x), with p = exp(x) / Z.
                exp_CV = logits_CV.exp()
                normalizer_C = exp_CV.sum(-1)
                expected_C = exp_CV.mul_(logits_CV).sum(-1) / normalizer_C
                entropy_R[span] = normalizer_C.log() - expected_C
            else:
                normalizer_C = logits_CV.exp_().sum(-1)
            logprobs_R[span] = target_C - normalizer_C.log_()
        ctx.save_for_backward(hidden_RD, weight_VD, targets_R)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        ctx.mark_non_differentiable(entropy_R)
        return logprobs_R, entropy_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden_RD, weight_VD, targets_R = ctx.saved_tensors
        gradient = HeadGradient(hidden_RD, weight_VD, ctx.needs_input_grad)
        # d logprob / d logits = (onehot(target) - softmax) / temperature
        scaled_R = grad_R / ctx.temperature
        for span, logits_CV in logits_in_chunks(hidden_RD, weight_VD, ctx.temperature, ctx.chunk_tokens):
            grad_CV = torch.softmax(logits_CV, -1, out=logits_CV).mul_(-scaled_R[span, None])
            grad_CV.scatter_add_(1, targets_R[span, None], scaled_R[span, None])
            gradient.add(span, grad_CV)
        return gradient.hidden_RD, gradient.weight_VD, None, None, None, None


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
    """Gathers the gradients of logits = hidden weight^T chunk by chunk, for those of the two that need one."""

    def __init__(self, hidden_RD: Tensor, weight_VD: Tensor, needed: tuple[bool, ...]) -> None:
        self._hidden_RD, self._weight_VD = hidden_RD, weight_VD
        self.hidden_RD = torch.empty_like(hidden_RD) if needed[0] else None
        self.weight_VD = torch.zeros_like(weight_VD) if needed[1] else None

    def add(self, span: slice, grad_CV: Tensor) -> None:
        grad_CV = grad_CV.to(self._hidden_RD.dtype)
        if self.hidden_RD is not None:
            torch.mm(grad_CV, self._weight_VD, out=self.hidden_RD[span])
        if self.weight_VD is not None:
            self.weight_VD.addmm_(grad_CV.t(), self._hidden_RD[span])
