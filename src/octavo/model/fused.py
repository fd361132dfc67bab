"""What the kernels for training compute, as differentiable functions.

The modules of this room call these where `octavo.native.training.serves` says that they can be had, and torch else;
tests hold that both agree.

Shapes: as in native/training.py.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from octavo.model.layout import Layout
from octavo.model.router import Routing
from octavo.native import training as native


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis."""
    return _Norm.apply(x.contiguous(), weight_D, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _SwiGLU.apply(gate, up)


def routed_experts(x_RD: Tensor, routing: Routing, gate_up_EDF: Tensor, down_EFD: Tensor) -> Tensor:
    """Sum over each token's experts of gate * down(silu(gate x) * up x): [R, D]."""
    return _Experts.apply(x_RD, routing.gates_RK, gate_up_EDF, down_EFD, routing.experts_RK)


def attention(
    q_RNH: Tensor,
    k_rope_RUP: Tensor,
    kv: Tensor,
    rotation: tuple[Tensor, Tensor],
    layout: Layout,
    scale: float,
    halves: bool,
    window: int = 0,
) -> Tensor:
    """Causal attention of packed documents: [R, N, V]. Keys and queries come unrotated; see native.Attention."""
    return _Attention.apply(q_RNH, k_rope_RUP, kv, *rotation, layout, scale, halves, window)


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        y, factors_R = native.norm(x, weight_D, eps)
        ctx.save_for_backward(x, weight_D, factors_R)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *native.norm_gradients(gradient.contiguous(), *ctx.saved_tensors), None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return native.swiglu(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return native.swiglu_gradients(gradient.contiguous(), *ctx.saved_tensors)


class _Experts(Function):
    @staticmethod
    def forward(
        ctx: Any, x_RD: Tensor, gates_RK: Tensor, gate_up_EDF: Tensor, down_EFD: Tensor, experts_RK: Tensor
    ) -> Tensor:
        flat_Q = experts_RK.flatten()
        order_Q = flat_Q.argsort(stable=True)
        ends_E = flat_Q.bincount(minlength=len(down_EFD)).cumsum(0)
        gates_Q = gates_RK.flatten()[order_Q]
        token_Q = order_Q // experts_RK.shape[1]
        out_RD, gate_up_QF = native.Experts(x_RD, token_Q, ends_E, gates_Q, gate_up_EDF, down_EFD).run()
        ctx.save_for_backward(x_RD, token_Q, ends_E, gates_Q, gate_up_EDF, down_EFD, gate_up_QF, order_Q)
        return out_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RD: Tensor) -> tuple[Tensor | None, ...]:
        *given, gate_up_QF, order_Q = ctx.saved_tensors
        experts = native.Experts(*given)
        of_x, of_gates_Q, of_gate_up, of_down = experts.gradients(
            gradient_RD.contiguous(), gate_up_QF, of_weights=ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        )
        of_gates = of_gates_Q.new_empty(len(order_Q)).index_copy_(0, order_Q, of_gates_Q).view(len(of_x), -1)
        return of_x, of_gates, of_gate_up, of_down, None


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_RNH: Tensor,
        k_rope_RUP: Tensor,
        kv: Tensor,
        cos: Tensor,
        sin: Tensor,
        layout: Layout,
        scale: float,
        halves: bool,
        window: int,
    ) -> Tensor:
        tensors = (q_RNH, k_rope_RUP, kv, cos, sin, layout.spans_S3, layout.ends_G)
        ctx.options = (scale, halves, window)
        out_RNV, log_sums_RN = native.Attention(*tensors, *ctx.options).run()
        ctx.save_for_backward(*tensors, out_RNV, log_sums_RN)
        return out_RNV

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RNV: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, out_RNV, log_sums_RN = ctx.saved_tensors
        attention = native.Attention(*tensors, *ctx.options)
        return *attention.gradients(gradient_RNV.contiguous(), out_RNV, log_sums_RN), *[None] * 6
