"""Muon: momentum, orthogonalized (Jordan et al. 2024), as scaled in Moonlight (Liu et al. 2025, arXiv 2502.16982).

    M <- momentum M + G;  U = orthogonalize(G + momentum M);  W <- W - lr (0.2 sqrt(max(rows, columns)) U + decay W)

The factor gives the update the root mean square of a usual AdamW update, so that both share learning rate and decay.

How the cost is hidden
- Matrices of equal shape, over all layers and experts, are orthogonalized together by batched products.
- The iteration runs on the smaller side, and where a matrix is long on its small Gram matrix alone.
- Matrices that a parameter holds side by side (gate and up) are orthogonalized apart, which is also half the work.

Shapes: `M` matrices, `N` smaller side, `L` longer side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Quintic whose iteration brings every singular value from (0, 1] near 1, found by Jordan et al.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_UPDATE_RMS = 0.2
# From this ratio of sides on, iterating on the Gram matrix costs less than on the matrix.
_GRAM_RATIO = 2.0
# Parameters are stacked up to this many numbers, so that the stack stays small beside the model ...
_STACK_NUMBERS = 1 << 22
# ... and orthogonalized this many numbers at a time, so that what an iteration makes stays in the cache.
_CACHE_NUMBERS = 1 << 18


class Muon(torch.optim.Optimizer):
    """For parameters that are matrices [rows, columns] or stacks of them [..., rows, columns]; others raise ValueError.

    A group's `parts` says how many equal matrices its parameters hold side by side along the last dimension.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        newton_schulz_steps: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": newton_schulz_steps,
            "parts": 1,
        }
        super().__init__(parameters, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2 or parameter.shape[-1] % group["parts"]:
                    raise ValueError(f"not {group['parts']} matrices side by side: {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                most = max(1, _STACK_NUMBERS // parameters[0].numel())
                for start in range(0, len(parameters), most):
                    self._update(parameters[start : start + most], group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of equal shape together."""
        momentum, learning_rate = group["momentum"], group["lr"]
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = parameter.grad
            assert gradient is not None
            state["momentum"].mul_(momentum).add_(gradient)
            directions.append(_apart(gradient.add(state["momentum"], alpha=momentum), group["parts"]))
        stacked = torch.stack(directions)
        scale = _UPDATE_RMS * max(stacked.shape[-2:]) ** 0.5
        updates = orthogonalize(stacked.flatten(0, -3), group["steps"]).view_as(stacked)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - learning_rate * group["weight_decay"])
            _apart(parameter, group["parts"]).add_(update, alpha=-learning_rate * scale)


def orthogonalize(matrices: Float[Tensor, "M rows columns"], steps: int = 5) -> Float[Tensor, "M rows columns"]:
    """Newton-Schulz: each matrix's singular values are brought near 1 (0.7 to 1.2 after 5 steps), its singular
    vectors kept.

    A zero matrix stays zero.
    """
    count, rows, columns = matrices.shape
    iterate = _iterate_gram if max(rows, columns) >= _GRAM_RATIO * min(rows, columns) else _iterate
    result = torch.empty_like(matrices)
    wide = rows <= columns
    at_once = max(1, _CACHE_NUMBERS // (rows * columns))
    for start in range(0, count, at_once):
        span = slice(start, start + at_once)
        x_MNL = matrices[span] if wide else matrices[span].mT
        x_MNL = x_MNL / torch.linalg.matrix_norm(x_MNL, keepdim=True).clamp(min=1e-30)
        x_MNL = iterate(x_MNL, steps)
        result[span] = x_MNL if wide else x_MNL.mT
    return result


def _iterate(x_MNL: Tensor, steps: int) -> Tensor:
    """X <- (a I + b A + c A^2) X with A = X X^T."""
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram_MNN = x_MNL @ x_MNL.mT
        polynomial_MNN = torch.baddbmm(gram_MNN, gram_MNN, gram_MNN, beta=b, alpha=c)
        x_MNL = torch.baddbmm(x_MNL, polynomial_MNN, x_MNL, beta=a)
    return x_MNL


def _iterate_gram(x_MNL: Tensor, steps: int) -> Tensor:
    """The same on small matrices: with P = a I + b A + c A^2, A <- P A P (they commute), Q <- P Q, and last X <- Q
    X."""
    a, b, c = _COEFFICIENTS
    gram_MNN = x_MNL @ x_MNL.mT
    product_MNN = None
    for step in range(steps):
        polynomial_MNN = torch.baddbmm(gram_MNN, gram_MNN, gram_MNN, beta=b, alpha=c)
        polynomial_MNN.diagonal(dim1=-2, dim2=-1).add_(a)
        product_MNN = polynomial_MNN if product_MNN is None else polynomial_MNN @ product_MNN
        if step < steps - 1:
            gram_MNN = polynomial_MNN @ gram_MNN @ polynomial_MNN
    return x_MNL if product_MNN is None else product_MNN @ x_MNL


def _apart(tensor: Tensor, parts: int) -> Tensor:
    """View [..., rows, columns] as [..., parts, rows, columns / parts]."""
    return tensor.unflatten(-1, (parts, -1)).movedim(-2, -3)
