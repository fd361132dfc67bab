"""Kernels for training as functions of tensors: values, and gradients from gradients.

They compute in float32 on CPUs what `model/` and `losses/` compute with torch as well, which is used where they cannot
be had. Matrix products are those of the library inside torch (MKL): torch has to bring its `sgemm_`.

Shapes: `R` tokens, `Q` token-expert pairs sorted by expert, `D` width, `E` experts, `F` hidden width, `N` heads, `U` kv
heads, `P` rotated head size, `V` value head size, `S` sequences, `G` groups of sequences.
"""

import ctypes
import os
from collections.abc import Callable
from ctypes import Structure, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octavo.native.build import NoKernelsError, build
from octavo.native.library import SWITCH


class _Experts(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("tokens", "width", "hidden", "experts")),
        *((name, c_void_p) for name in ("x", "token_Q", "ends_E", "gates_Q", "gate_up", "down", "gate_up_Q")),
    )


class _ExpertGradients(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("output", "gates_Q", "gate_up", "down"))


class _Attention(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("tokens", "heads", "kv_heads", "nope", "rope", "value", "groups", "window")),
        *((name, c_int64) for name in ("halves", "shared_rope", "rope_stride")),
        *((name, c_void_p) for name in ("q", "k_rope", "kv", "cos", "sin", "spans", "ends_G", "out", "log_sums")),
        ("scale", c_float),
    )


class _AttentionGradients(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("out", "q", "k_rope", "kv"))


_STRUCTURES = (_Experts, _ExpertGradients, _Attention, _AttentionGradients)


def serves(*tensors: Tensor) -> bool:
    """Whether kernels can compute with these tensors now: float32 on the CPU."""
    return (
        all(tensor.dtype is torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        and os.environ.get(SWITCH) != "0"
        and _load() is not None
    )


def norm(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm of the last axis, and what its gradients need: 1 / rms of each row."""
    y, factors_R = torch.empty_like(x), x.new_empty(x.numel() // len(weight_D))
    _call("norm", y, factors_R, x, weight_D, c_float(eps), len(factors_R), len(weight_D))
    return y, factors_R


def norm_gradients(gradient: Tensor, x: Tensor, weight_D: Tensor, factors_R: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight."""
    of_x, of_weight_D = torch.empty_like(x), torch.empty_like(weight_D)
    memory = x.new_empty(torch.get_num_threads() * len(weight_D))
    rows, width = len(factors_R), len(weight_D)
    _call("norm_backward", of_x, of_weight_D, gradient, x, weight_D, factors_R, rows, width, memory)
    return of_x, of_weight_D


def softmax_(logits_RV: Tensor, targets_R: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Turn logits into probabilities, in place; the log-probs of the targets, and each row's entropy if asked for."""
    logprobs_R = logits_RV.new_empty(len(logits_RV))
    entropy_R = torch.empty_like(logprobs_R) if with_entropy else None
    _call("softmax", logits_RV, targets_R, logprobs_R, entropy_R, *logits_RV.shape)
    return logprobs_R, entropy_R


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    h = torch.empty_like(gate)
    _call("swiglu", h, gate, up, gate.numel())
    return h


def swiglu_gradients(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
    _call("swiglu_backward", of_gate, of_up, gradient, gate, up, gate.numel())
    return of_gate, of_up


@dataclass(frozen=True)
class Experts:
    """Routed experts, and which pair of token and expert goes where."""

    x_RD: Tensor
    token_Q: Tensor
    """int64: the token of each pair."""
    ends_E: Tensor
    """int64: where the pairs of each expert end."""
    gates_Q: Tensor
    gate_up_EDF: Tensor
    down_EFD: Tensor

    def run(self) -> tuple[Tensor, Tensor]:
        """Weighted sum over each token's experts [R, D], and gate and up of each pair [Q, 2F] for the gradients."""
        gate_up_QF = self.x_RD.new_empty(len(self.token_Q), self.gate_up_EDF.shape[2])
        return self._call(gate_up_QF, None), gate_up_QF

    def gradients(
        self, gradient_RD: Tensor, gate_up_QF: Tensor, of_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Gradients of x, gates_Q and, if asked for, of the weights."""
        of_gates_Q = torch.empty_like(self.gates_Q)
        of_gate_up = torch.empty_like(self.gate_up_EDF) if of_weights else None
        of_down = torch.empty_like(self.down_EFD) if of_weights else None
        pointers = (None if x is None else x.data_ptr() for x in (gradient_RD, of_gates_Q, of_gate_up, of_down))
        of_x_RD = self._call(gate_up_QF, byref(_ExpertGradients(*pointers)))
        return of_x_RD, of_gates_Q, of_gate_up, of_down

    def _call(self, gate_up_QF: Tensor, gradients: object) -> Tensor:
        experts, hidden, width = self.down_EFD.shape
        tensors = (self.x_RD, self.token_Q, self.ends_E, self.gates_Q, self.gate_up_EDF, self.down_EFD, gate_up_QF)
        structure = byref(_Experts(len(self.x_RD), width, hidden, experts, *(x.data_ptr() for x in tensors)))
        result_RD = torch.empty_like(self.x_RD)
        _call("experts", structure, gradients, _sgemm(), result_RD, _memory("experts", structure))
        return result_RD


@dataclass(frozen=True)
class Attention:
    """Causal attention of packed documents and their branches."""

    q_RNH: Tensor
    """[R, N, nope + P], not yet rotated."""
    k_rope: Tensor
    """[R, U, P], not yet rotated, or [R, 1, P] for all heads together; rows may lie apart."""
    kv: Tensor
    """[R, U, nope + V]: the part of the keys that is not rotated, and the values."""
    cos: Tensor
    sin: Tensor
    """[R, P / 2]"""
    spans_S3: Tensor
    """int64: of each sequence its first row, its own tokens, and how many it borrows from its group's beginning."""
    ends_G: Tensor
    """int64: where the sequences of each group end."""
    scale: float
    halves: bool
    window: int

    def run(self) -> tuple[Tensor, Tensor]:
        """[R, N, V], and the logarithm of each query's sum [R, N] for the gradients."""
        rows, heads, size = self.q_RNH.shape
        out_RNV = self.q_RNH.new_empty(rows, heads, self.kv.shape[2] - size + self.k_rope.shape[2])
        log_sums_RN = self.q_RNH.new_empty(rows, heads)
        self._call(out_RNV, log_sums_RN, None)
        return out_RNV, log_sums_RN

    def gradients(self, gradient_RNV: Tensor, out_RNV: Tensor, log_sums_RN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k_rope and kv."""
        rows, kv_heads, _ = self.kv.shape
        of_q, of_kv = torch.empty_like(self.q_RNH), torch.empty_like(self.kv)
        of_k_rope = self.kv.new_empty(rows, kv_heads, self.k_rope.shape[2])
        pointers = (x.data_ptr() for x in (gradient_RNV, of_q, of_k_rope, of_kv))
        self._call(out_RNV, log_sums_RN, byref(_AttentionGradients(*pointers)))
        return of_q, of_k_rope if self.k_rope.shape[1] == kv_heads else of_k_rope.sum(1, keepdim=True), of_kv

    def _call(self, out_RNV: Tensor, log_sums_RN: Tensor, gradients: object) -> None:
        rows, heads, size = self.q_RNH.shape
        kv_heads, rope = self.kv.shape[1], self.k_rope.shape[2]
        tensors = (
            self.q_RNH,
            self.k_rope,
            self.kv,
            self.cos,
            self.sin,
            self.spans_S3,
            self.ends_G,
            out_RNV,
            log_sums_RN,
        )
        structure = byref(
            _Attention(
                *(rows, heads, kv_heads, size - rope, rope, out_RNV.shape[2], len(self.ends_G), self.window),
                *(self.halves, self.k_rope.shape[1] < kv_heads, self.k_rope.stride(0)),
                *(x.data_ptr() for x in tensors),
                self.scale,
            )
        )
        _call("attention", structure, gradients, _sgemm(), _memory("attention", structure))


def _memory(kernel: str, structure: object) -> Tensor:
    floats: Callable[[object], int] = getattr(_library(), f"octavo_{kernel}_floats")
    return torch.empty(torch.get_num_threads() * floats(structure))


def _call(kernel: str, *arguments: object) -> None:
    getattr(_library(), f"octavo_{kernel}")(*map(_argument, arguments), c_int64(torch.get_num_threads()))


def _argument(value: object) -> object:
    match value:
        case Tensor():
            return c_void_p(value.data_ptr())
        case int():
            return c_int64(value)
    return value


def _sgemm() -> c_void_p:
    return _loaded()[1]


def _library() -> ctypes.CDLL:
    return _loaded()[0]


def _loaded() -> tuple[ctypes.CDLL, c_void_p]:
    loaded = _load()
    assert loaded is not None, "asked for kernels that do not serve"
    return loaded


@cache
def _load() -> tuple[ctypes.CDLL, c_void_p] | None:
    """The library and the address of the product, if both can be had here and do what is expected of them."""
    try:
        library, _ = build("training.c")
        sgemm = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).sgemm_
    except (NoKernelsError, OSError, AttributeError):
        return None
    for name in ("experts_floats", "attention_floats", "training_sizes"):
        getattr(library, f"octavo_{name}").restype = c_int64
    sizes = (library.octavo_training_sizes(c_int64(index)) for index in range(len(_STRUCTURES)))
    right = list(sizes) == list(map(ctypes.sizeof, _STRUCTURES)) and _multiplies(sgemm)
    return (library, ctypes.cast(sgemm, c_void_p)) if right else None


def _multiplies(sgemm: Callable[..., object]) -> bool:
    """Whether that symbol is the product that we take it for, with sizes of 32 bits."""
    a, b, c = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([[1.0], [-2.0], [5.0]]), torch.zeros(2, 1)
    one, two, three = (byref(ctypes.c_int(size)) for size in (1, 2, 3))
    kept, added = byref(c_float(1.0)), byref(c_float(0.0))
    pointers = [c_void_p(x.data_ptr()) for x in (b, a, c)]
    sgemm(b"N", b"N", one, two, three, kept, pointers[0], one, pointers[1], three, added, pointers[2], one)
    return c.tolist() == [[12.0], [24.0]]
