"""Feed-forward layers: the dense SwiGLU, and the mixture of experts, which computes only what a token's experts need.

Tokens are sorted by expert, so that each expert is one matrix product over its own run of rows. No token is dropped.

Shapes: `R` tokens, `K` chosen experts, `Q` = R K token-expert pairs sorted by expert, `D` width, `F` hidden width,
`E` experts.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octavo.model import fused
from octavo.model.config import ModelConfig, MoEConfig
from octavo.model.router import Router, Routing
from octavo.native import training as native

# What a product for one expert costs beyond its arithmetic, told in FLOPs: padding that costs less is worth it.
_CALL_FLOPS = 1.5e6


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate(x), self.up(x)
        if torch.is_grad_enabled() and native.serves(gate, up):
            return self.down(fused.swiglu(gate, up))
        return self.down(F.silu(gate) * up)


class RoutedExperts(nn.Module):
    """E SwiGLUs held in two tensors: gate and up side by side [E, D, 2F], down [E, F, D]."""

    def __init__(self, width: int, config: MoEConfig):
        super().__init__()
        self.gate_up_EDF = nn.Parameter(torch.empty(config.experts, width, 2 * config.expert_width))
        self.down_EFD = nn.Parameter(torch.empty(config.experts, config.expert_width, width))

    def forward(self, x_RD: Tensor, routing: Routing) -> Tensor:
        """Sum over each token's experts of gate * expert(x): [R, D]."""
        if torch.is_grad_enabled() and native.serves(x_RD, self.down_EFD):
            return fused.routed_experts(x_RD, routing, self.gate_up_EDF, self.down_EFD)
        flat_Q = routing.experts_RK.flatten()
        order_Q = flat_Q.argsort(stable=True)
        # rank_Q[i]: where pair i stands after sorting.
        rank_Q = torch.empty_like(order_Q)
        rank_Q[order_Q] = torch.arange(len(order_Q), device=order_Q.device)
        counts_E = torch.bincount(flat_Q, minlength=len(self.down_EFD))
        x_QD = _Dispatch.apply(x_RD, order_Q, rank_Q, routing.experts_RK.shape[1])
        y_QD = self._compute(x_QD, flat_Q, order_Q, counts_E)
        return _Combine.apply(y_QD, routing.gates_RK, order_Q, rank_Q)

    def _compute(self, x_QD: Tensor, flat_Q: Tensor, order_Q: Tensor, counts_E: Tensor) -> Tensor:
        """Each expert over its own run of rows: [Q, D] -> [Q, D]."""
        if not torch.is_grad_enabled():
            longest = int(counts_E.max())
            padding = longest - len(x_QD) / len(counts_E)
            if padding * 6 * self.down_EFD[0].numel() <= _CALL_FLOPS:
                return self._compute_padded(x_QD, flat_Q[order_Q], counts_E, longest)
        ends_E = counts_E.cumsum(0).to(torch.int32)
        gate_QF, up_QF = F.grouped_mm(x_QD, self.gate_up_EDF, offs=ends_E).chunk(2, dim=-1)
        return F.grouped_mm(F.silu(gate_QF) * up_QF, self.down_EFD, offs=ends_E)

    def _compute_padded(self, x_QD: Tensor, expert_Q: Tensor, counts_E: Tensor, longest: int) -> Tensor:
        """As `_compute`, for decoding: with few rows an expert, one batched product over rows padded to the longest run
        is up to 3.5 times faster than a product for each expert."""
        experts, width = len(counts_E), x_QD.shape[1]
        starts_E = counts_E.cumsum(0) - counts_E
        slot_Q = torch.arange(len(x_QD), device=x_QD.device) + (expert_Q * longest - starts_E[expert_Q])
        x_ELD = x_QD.new_zeros(experts * longest, width).index_copy_(0, slot_Q, x_QD).view(experts, longest, width)
        gate_ELF, up_ELF = torch.bmm(x_ELD, self.gate_up_EDF).chunk(2, dim=-1)
        y_ELD = torch.bmm(F.silu(gate_ELF) * up_ELF, self.down_EFD)
        return y_ELD.flatten(0, 1).index_select(0, slot_Q)


class MoE(nn.Module):
    """Routed experts chosen by the router, plus experts that every token uses."""

    def __init__(self, width: int, config: MoEConfig):
        super().__init__()
        self.router = Router(width, config)
        self.experts = RoutedExperts(width, config)
        shared = config.shared_experts * config.expert_width
        self.shared = SwiGLU(width, shared) if shared else None

    def forward(self, x_RD: Tensor) -> Tensor:
        routed_RD = self.experts(x_RD, self.router(x_RD))
        return routed_RD if self.shared is None else routed_RD + self.shared(x_RD)


def build_feed_forward(config: ModelConfig, layer: int) -> SwiGLU | MoE:
    """The feed-forward part of that layer (0-based)."""
    if config.moe and config.is_sparse(layer):
        return MoE(config.width, config.moe)
    return SwiGLU(config.width, config.ffn_width)


class _Dispatch(torch.autograd.Function):
    """Copy each token once for each of its experts, in expert order. Its backward gathers and sums instead of
    scattering: deterministic, and several times faster on a CPU."""

    @staticmethod
    def forward(ctx, x_RD: Tensor, order_Q: Tensor, rank_Q: Tensor, chosen: int) -> Tensor:
        ctx.save_for_backward(rank_Q)
        ctx.chosen = chosen
        return x_RD.index_select(0, order_Q // chosen)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        (rank_Q,) = ctx.saved_tensors
        gradient_RKD = gradients[0].index_select(0, rank_Q).unflatten(0, (-1, ctx.chosen))
        return gradient_RKD.sum(dim=1), None, None, None


class _Combine(torch.autograd.Function):
    """Bring expert outputs back to their tokens, weighted by the gates: the inverse of _Dispatch."""

    @staticmethod
    def forward(ctx, y_QD: Tensor, gates_RK: Tensor, order_Q: Tensor, rank_Q: Tensor) -> Tensor:
        ctx.save_for_backward(y_QD, gates_RK, order_Q, rank_Q)
        y_RKD = y_QD.index_select(0, rank_Q).unflatten(0, gates_RK.shape)
        return torch.bmm(gates_RK.unsqueeze(1), y_RKD).squeeze(1)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        y_QD, gates_RK, order_Q, rank_Q = ctx.saved_tensors
        gradient_QD = gradients[0].index_select(0, order_Q // gates_RK.shape[1])
        gates_gradient_Q = (gradient_QD * y_QD).sum(dim=-1)
        y_gradient_QD = gradient_QD * gates_RK.flatten()[order_Q].unsqueeze(-1)
        return y_gradient_QD, gates_gradient_Q[rank_Q].view_as(gates_RK), None, None
