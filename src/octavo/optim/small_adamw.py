"""AdamW whose means are kept in bfloat16: half the memory of its state (Loshchilov and Hutter 2019 for the method).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    W <- W - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay W)

All arithmetic is in float32; what is rounded is what is kept between steps, to 8 bits of precision: a relative 0.4%.
A mean that moves by less than that in a step stands still, which matters for slow decays: with beta 0.999 a mean moves
by 0.1% of its distance, with 0.95 by 5%.

Weights are gone through in pieces that stay in the cache, so that nothing as large as a weight is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Numbers a piece: a few tensors of them fit into the cache of a core.
_PIECE = 1 << 16
SLOWEST_BETA = 0.99
"""The largest beta whose mean still moves when it is rounded to bfloat16 after each step."""


class SmallAdamW(torch.optim.Optimizer):
    """As torch.optim.AdamW, with its two means in `state_dtype`. In bfloat16, betas are to be at most SLOWEST_BETA."""

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        state_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._state_dtype = state_dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None, "SmallAdamW takes no closure"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # torch gives state the dtype of its parameter.
        for state in self.state.values():
            for name in ("mean", "square"):
                state[name] = state[name].to(self._state_dtype)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            for name in ("mean", "square"):
                state[name] = torch.zeros_like(parameter, dtype=self._state_dtype)
            state["step"] = 0
        state["step"] += 1
        (beta1, beta2), rate = group["betas"], group["lr"]
        correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        flat = (parameter.view(-1), gradient.reshape(-1), state["mean"].view(-1), state["square"].view(-1))
        for weight, grad, kept_mean, kept_square in zip(*(tensor.split(_PIECE) for tensor in flat), strict=True):
            grad = grad.to(torch.float32)
            mean = kept_mean.to(torch.float32).lerp_(grad, 1 - beta1)
            square = kept_square.to(torch.float32).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            kept_mean.copy_(mean)
            kept_square.copy_(square)
            weight.mul_(1 - rate * group["weight_decay"])
            divisor = (square / correction2).sqrt_().add_(group["eps"])
            weight.addcdiv_(mean, divisor, value=-rate / correction1)
