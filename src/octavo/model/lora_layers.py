"""Modules with a learned delta of low rank beside frozen weights: what `lora` puts in the place of others.

Shapes: `R` tokens, `Q` token-expert pairs sorted by expert, `D` width, `F` hidden width, `E` experts, `r` rank.
"""

import copy
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from octavo.model.experts import RoutedExperts, _Combine, _Dispatch
from octavo.model.router import Router, Routing


class Adapter(nn.Module, ABC):
    """A module with a delta of low rank beside each of its frozen matrices."""

    def __init__(self, base: nn.Module, scale: float, dropout: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = dropout
        self._unfolded: list[Tensor] | None = None
        self.train(base.training)

    @abstractmethod
    def deltas(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(W, left, right) of each matrix, or stack of them: W + scale left @ right is what it stands for."""

    @property
    def is_folded(self) -> bool:
        """Whether the base holds the delta already."""
        return self._unfolded is not None

    @torch.no_grad()
    def fold(self, keep: bool) -> None:
        """Add the deltas to the base; with `keep`, `unfold` can take them out again."""
        assert not self.is_folded
        self._unfolded = [weight.clone() for weight, _, _ in self.deltas()] if keep else []
        for weight, left, right in self.deltas():
            add = weight.baddbmm_ if weight.ndim == 3 else weight.addmm_
            add(left.to(weight.dtype), right.to(weight.dtype), alpha=self.scale)

    @torch.no_grad()
    def unfold(self) -> None:
        """Give the base its own weights back, bit for bit."""
        assert self._unfolded, "nothing was kept"
        for (weight, _, _), plain in zip(self.deltas(), self._unfolded, strict=True):
            weight.copy_(plain)
        self._unfolded = None

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """A plain module of its own that stands for base and deltas; this one stays as it is."""
        twin = copy.deepcopy(self)
        twin.fold(keep=False)
        return twin.base

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class LoraMatrix(Adapter):
    """Stands for a module with one matrix `weight` [out, in]."""

    base: nn.Linear | Router

    def __init__(self, base: nn.Linear | Router, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(base, scale, dropout)
        outputs, inputs = base.weight.shape
        self.lora_A = _uniform((rank, inputs), inputs, base.weight)
        self.lora_B = _zeros((outputs, rank), base.weight)

    def deltas(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(self.base.weight, self.lora_B, self.lora_A)]

    @property
    def weight(self) -> Tensor:
        """The whole matrix with its delta, for those who need it as such: absorbed attention, quantization."""
        weight = self.base.weight
        if self.is_folded:
            return weight
        return torch.addmm(weight, self.lora_B.to(weight.dtype), self.lora_A.to(weight.dtype), alpha=self.scale)


class LoraLinear(LoraMatrix):
    """Stands for an nn.Linear, `weight` and `bias` included."""

    base: nn.Linear

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.is_folded:
            return y
        reduced = F.linear(self._drop(x).to(self.lora_A.dtype), self.lora_A)
        if y.dtype != reduced.dtype:
            return y + (F.linear(reduced, self.lora_B) * self.scale).to(y.dtype)
        # In place: nobody else has seen y, and a second tensor of its size would cost more than the product.
        flat = y.view(-1, y.shape[-1])
        return flat.addmm_(reduced.view(-1, reduced.shape[-1]), self.lora_B.t(), alpha=self.scale).view_as(y)


class LoraRouter(LoraMatrix):
    """Stands for a Router. Its matrix is small, so it is made whole for each pass; dropout does not apply."""

    base: Router

    def forward(self, x_RD: Tensor) -> Routing:
        return functional_call(self.base, {"weight": self.weight}, (x_RD,))


class LoraExperts(Adapter):
    """Stands for RoutedExperts: each expert has deltas of its own, gate and up side by side share one."""

    base: RoutedExperts

    def __init__(self, base: RoutedExperts, rank: int, scale: float, dropout: float = 0.0) -> None:
        super().__init__(base, scale, dropout)
        experts, width, hidden2 = base.gate_up_EDF.shape
        like = base.down_EFD
        self.lora_A_gate_up_EDr = _uniform((experts, width, rank), width, like)
        self.lora_B_gate_up_ErF = _zeros((experts, rank, hidden2), like)
        self.lora_A_down_EFr = _uniform((experts, hidden2 // 2, rank), hidden2 // 2, like)
        self.lora_B_down_ErD = _zeros((experts, rank, width), like)

    def deltas(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            (self.base.gate_up_EDF, self.lora_A_gate_up_EDr, self.lora_B_gate_up_ErF),
            (self.base.down_EFD, self.lora_A_down_EFr, self.lora_B_down_ErD),
        ]

    def forward(self, x_RD: Tensor, routing: Routing) -> Tensor:
        """Sum over each token's experts of gate * expert(x): [R, D]."""
        if self.is_folded:
            return self.base(x_RD, routing)
        flat_Q = routing.experts_RK.flatten()
        order_Q = flat_Q.argsort(stable=True)
        rank_Q = torch.empty_like(order_Q)
        rank_Q[order_Q] = torch.arange(len(order_Q), device=order_Q.device)
        ends_E = torch.bincount(flat_Q, minlength=len(self.base.down_EFD)).cumsum(0).to(torch.int32)
        x_QD = _Dispatch.apply(x_RD, order_Q, rank_Q, routing.experts_RK.shape[1])
        gate_up, down = self.deltas()
        gate_QF, up_QF = self._product(x_QD, *gate_up, ends_E).chunk(2, dim=-1)
        y_QD = self._product(F.silu(gate_QF) * up_QF, *down, ends_E)
        return _Combine.apply(y_QD, routing.gates_RK, order_Q, rank_Q)

    def _product(self, x: Tensor, weight: Tensor, left: Tensor, right: Tensor, ends_E: Tensor) -> Tensor:
        reduced = F.grouped_mm(self._drop(x).to(left.dtype), left, offs=ends_E) * self.scale
        return F.grouped_mm(x, weight, offs=ends_E) + F.grouped_mm(reduced, right, offs=ends_E).to(x.dtype)


def _uniform(shape: tuple[int, ...], inputs: int, like: Tensor) -> nn.Parameter:
    """As nn.Linear draws its weight: uniform within 1 / sqrt(inputs). In float32, whatever the base is."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape, dtype=torch.float32, device=like.device).uniform_(-bound, bound))


def _zeros(shape: tuple[int, ...], like: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=like.device))
