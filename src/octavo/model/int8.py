"""Weights in 8 bits, for inference: a quarter of the memory, and of what a decoding step has to read.

Each output's weights are split into groups of 32 inputs that share a scale, max |w| / 127 (as in GGUF's Q8_0, but the
scale is float32). The kernels round activations in the same groups and multiply whole numbers; without kernels the
weights are widened and multiplied by exact activations, which is slower and agrees to the rounding of activations.
`kv_b` of latent attention and the router stay in float32: they are small, and what they decide is delicate.

Shapes: `R` rows, `I` inputs, `O` outputs, `E` experts, `D` width, `F` hidden width, `V` vocabulary; packed weights are
[panels of 16 outputs, groups of 32 inputs, 8, 16 outputs, 4 inputs], their scales [panels, groups, 16].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octavo import native
from octavo.model.experts import RoutedExperts
from octavo.model.router import Routing
from octavo.native.structures import INT8, Matrix

GROUP = 32
PANEL = 16
_QUAD = 4
_PACKED_AT_ONCE = 256 * PANEL
"""Outputs: packing makes several copies of its input, and an embedding is large."""
_OFFSET = 128
"""Added to what is stored, because the processor's products want one unsigned side."""


def pack(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded weights (uint8) and scales (float32), both in panels."""
    values, scales = zip(*map(_pack, weight_OI.split(_PACKED_AT_ONCE)), strict=True)
    return torch.cat(values), torch.cat(scales)


def _pack(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    outputs, inputs = weight_OI.shape
    padded = F.pad(weight_OI.float(), (0, -inputs % GROUP, 0, -outputs % PANEL))
    grouped = padded.unflatten(0, (-1, PANEL)).unflatten(2, (-1, GROUP))  # [panels, 16, groups, 32]
    scales = grouped.abs().amax(-1) / 127
    rounded = (grouped / torch.where(scales > 0, scales, 1).unsqueeze(-1)).round_().add_(_OFFSET).to(torch.uint8)
    values = rounded.unflatten(3, (-1, _QUAD)).permute(0, 2, 3, 1, 4)
    return values.contiguous(), scales.transpose(1, 2).contiguous()


def unpack(values: Tensor, scales: Tensor, outputs: int, inputs: int) -> Tensor:
    """What packed weights stand for, float32 [O, I]."""
    grouped = values.permute(0, 3, 1, 2, 4).flatten(3).float().sub_(_OFFSET)  # [panels, 16, groups, 32]
    return (grouped * scales.transpose(1, 2).unsqueeze(-1)).flatten(2).flatten(0, 1)[:outputs, :inputs]


class Int8Matrix(nn.Module):
    """One packed matrix [O, I], with a bias or without."""

    values: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        self.outputs, self.inputs = weight_OI.shape
        values, scales = pack(weight_OI.detach())
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias_O is None else bias_O.detach())

    @property
    def weight(self) -> Tensor:
        """The whole matrix, widened: for those who cannot do with less."""
        return unpack(self.values, self.scales, self.outputs, self.inputs)

    def matrix(self) -> Matrix:
        """For the kernels."""
        bias = None if self.bias is None else self.bias.data_ptr()
        return Matrix(INT8, self.outputs, self.inputs, self.values.data_ptr(), self.scales.data_ptr(), bias)

    def multiply(self, x: Tensor) -> Tensor:
        """x W^T + bias: [..., I] -> [..., O]."""
        if native.serves(x, self.scales):
            return native.multiply(self.matrix(), x.reshape(-1, self.inputs)).view(*x.shape[:-1], self.outputs)
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class Int8Linear(Int8Matrix):
    """Stands for an nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x)


class Int8Embedding(Int8Matrix):
    """Stands for an nn.Embedding, which may be the head too."""

    def forward(self, ids: Tensor) -> Tensor:
        panel, output = ids.flatten() // PANEL, ids.flatten() % PANEL
        grouped = self.values[panel, :, :, output].flatten(2).float() - _OFFSET  # [R, groups, 32]
        rows = (grouped * self.scales[panel, :, output].unsqueeze(-1)).flatten(1)[:, : self.inputs]
        return rows.reshape(*ids.shape, self.inputs)


class Int8Experts(nn.Module):
    """Stands for RoutedExperts: the matrices of each expert packed one after the other."""

    gate_up_values: Tensor
    gate_up_scales: Tensor
    down_values: Tensor
    down_scales: Tensor

    def __init__(self, experts: RoutedExperts) -> None:
        super().__init__()
        self.experts, self.width, hidden2 = experts.gate_up_EDF.shape
        self.hidden = hidden2 // 2
        for name, weight_EIO in (("gate_up", experts.gate_up_EDF), ("down", experts.down_EFD)):
            packed = [pack(weight_IO.detach().t()) for weight_IO in weight_EIO]
            for kind, tensors in zip(("values", "scales"), zip(*packed, strict=True), strict=True):
                self.register_buffer(f"{name}_{kind}", torch.stack(tensors))

    def matrices(self) -> tuple[Matrix, Matrix]:
        """Gate and up, and down, of all experts, for the kernels."""
        return self._gate_up(0), self._down(0)

    def forward(self, x_RD: Tensor, routing: Routing) -> Tensor:
        """Sum over each token's experts of gate * expert(x): [R, D]."""
        y_RD = torch.zeros_like(x_RD)
        for expert in routing.experts_RK.unique().tolist():
            row_Q, choice_Q = (routing.experts_RK == expert).nonzero(as_tuple=True)
            gate_QF, up_QF = self._product(x_RD[row_Q], self._gate_up(expert), "gate_up", expert).chunk(2, dim=-1)
            y_QD = self._product(F.silu(gate_QF) * up_QF, self._down(expert), "down", expert)
            y_RD.index_add_(0, row_Q, y_QD * routing.gates_RK[row_Q, choice_Q, None])
        return y_RD

    def _product(self, x_QI: Tensor, matrix: Matrix, name: str, expert: int) -> Tensor:
        if native.serves(x_QI, self.down_scales):
            return native.multiply(matrix, x_QI)
        values, scales = getattr(self, f"{name}_values")[expert], getattr(self, f"{name}_scales")[expert]
        return F.linear(x_QI, unpack(values, scales, matrix.outputs, matrix.inputs).to(x_QI.dtype))

    def _gate_up(self, expert: int) -> Matrix:
        values, scales = self.gate_up_values[expert], self.gate_up_scales[expert]
        return Matrix(INT8, 2 * self.hidden, self.width, values.data_ptr(), scales.data_ptr())

    def _down(self, expert: int) -> Matrix:
        values, scales = self.down_values[expert], self.down_scales[expert]
        return Matrix(INT8, self.width, self.hidden, values.data_ptr(), scales.data_ptr())
