"""A model as the native kernels see it: `forward_cached` of all its layers in one call.

With few rows a pass is some hundreds of small operations, and calling each of them costs more than the arithmetic. What
is handed over are addresses: nothing is copied, so weights that are changed in place are seen. Where the kernels do not
serve (gradients, other dtypes and devices, adapters that are not folded, no compiler) the modules compute, and agree to
rounding.

Shapes: `B` rows, `T` tokens, `D` width, `P` rotated head size.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from octavo import native
from octavo.model.attention import GQA, LATENT_NORM_EPS, MLA
from octavo.model.block import Block
from octavo.model.cache import Cache
from octavo.model.config import GQAConfig, MLAConfig
from octavo.model.experts import MoE, RoutedExperts, SwiGLU
from octavo.model.int8 import Int8Experts, Int8Linear
from octavo.model.lora_layers import Adapter
from octavo.native.structures import (
    FLOAT_COLUMNS,
    FLOAT_ROWS,
    NO_NORM,
    NORM_OF_ALL,
    NORM_OF_HEADS,
    Layer,
    Matrix,
    Model,
    Routing,
    Tokens,
)

if TYPE_CHECKING:
    from octavo.model.transformer import Transformer


class _UnknownModuleError(Exception):
    """The model has a part that the kernels do not know."""


class Decoder:
    """Addresses of one model's weights. Valid as long as no module or parameter is replaced by another."""

    def __init__(self, model: Transformer) -> None:
        """Raises _UnknownModuleError."""
        self._rope = model.rope
        self._kept: list[Tensor] = []
        self._layers = (Layer * model.config.layers)()
        for layer, block in zip(self._layers, model.layers, strict=True):
            self._describe(layer, cast(Block, block))
        self._model = self._describe_model(model)
        self._addresses = [tensor.data_ptr() for tensor in self._kept]
        self._angles = (torch.empty(0), torch.empty(0))
        self._scratch = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def of(model: Transformer) -> Decoder | None:
        """None where the modules themselves must compute."""
        if not native.serves(model.norm.weight):
            return None
        try:
            decoder = Decoder(model)
        except _UnknownModuleError:
            return None
        return decoder if native.serves(*decoder._floats()) else None

    def is_valid(self) -> bool:
        """Whether all weights still lie where they lay."""
        return all(tensor.data_ptr() == at for tensor, at in zip(self._kept, self._addresses, strict=True))

    def extend(self, x_BTD: Tensor, cache: Cache) -> Tensor:
        """Append the embeddings of T tokens to each row of the cache; return hidden states behind the final norm.

        `cache.lengths_B` is not advanced.
        """
        rows, tokens, width = x_BTD.shape
        slot_BT = cache.lengths_B[:, None] + torch.arange(tokens)
        row_BT = torch.arange(rows)[:, None].expand(rows, tokens).contiguous()
        longest = int(slot_BT.max()) + 1
        cosine, sine = self._rotation(cache.max_tokens)
        tensors = [tensor for layer in cache.layers for tensor in layer]
        addresses = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        hidden_RD = x_BTD.reshape(-1, width).clone()
        step = Tokens(
            tokens=rows * tokens,
            row=row_BT.data_ptr(),
            slot=slot_BT.data_ptr(),
            longest=longest,
            cosine=cosine.data_ptr(),
            sine=sine.data_ptr(),
            cache=ctypes.addressof(addresses),
            row_stride=tensors[0].stride(0),
            head_stride=tensors[0].stride(1),
            x=hidden_RD.data_ptr(),
        )
        size = native.extend_bytes(self._model, rows * tokens, longest)
        if len(self._scratch) < size:
            self._scratch = native.scratch(size)
        native.extend(self._model, step, self._scratch)
        return hidden_RD.view(rows, tokens, width)

    def _rotation(self, positions: int) -> tuple[Tensor, Tensor]:
        if len(self._angles[0]) < positions:
            cosine, sine = self._rope(torch.arange(positions))
            self._angles = cosine.contiguous(), sine.contiguous()
        return self._angles

    def _floats(self) -> list[Tensor]:
        return [tensor for tensor in self._kept if tensor.dtype is not torch.uint8]

    def _address(self, tensor: Tensor) -> int:
        if not tensor.is_contiguous():
            raise _UnknownModuleError
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _matrix(self, module: nn.Module) -> Matrix:
        module = _unfolded(module)
        if isinstance(module, Int8Linear):
            self._kept += module.buffers()
            return module.matrix()
        if not isinstance(module, nn.Linear):
            raise _UnknownModuleError
        outputs, inputs = module.weight.shape
        bias = None if module.bias is None else self._address(module.bias)
        return Matrix(FLOAT_ROWS, outputs, inputs, self._address(module.weight), None, bias)

    def _describe(self, layer: Layer, block: Block) -> None:
        layer.attention_norm = self._address(block.attention_norm.weight)
        layer.ffn_norm = self._address(block.ffn_norm.weight)
        attention = block.attention
        if isinstance(attention, MLA):
            self._describe_latent(layer, attention)
        else:
            self._describe_grouped(layer, attention)
        layer.o = self._matrix(attention.o)
        ffn = block.ffn
        if isinstance(ffn, MoE):
            self._describe_experts(layer, ffn)
            if ffn.shared is not None:
                self._describe_dense(layer, ffn.shared)
        else:
            self._describe_dense(layer, ffn)

    def _describe_latent(self, layer: Layer, attention: MLA) -> None:
        if isinstance(attention.q, nn.Sequential):
            down, norm, up = attention.q
            layer.q_a, layer.q = self._matrix(down), self._matrix(up)
            layer.q_norm = self._address(cast(Any, norm).weight)
        else:
            layer.q = self._matrix(attention.q)
        layer.kv_a = self._matrix(attention.kv_a)
        layer.k_norm = self._address(attention.kv_norm.weight)
        expansion = _unfolded(attention.kv_b)
        if not isinstance(expansion, nn.Linear):
            raise _UnknownModuleError
        layer.kv_b = self._address(expansion.weight)

    def _describe_grouped(self, layer: Layer, attention: GQA) -> None:
        layer.q, layer.k, layer.v = (self._matrix(part) for part in (attention.q, attention.k, attention.v))
        if attention.qk_norm:
            layer.q_norm = self._address(attention.q_norm.weight)
            layer.k_norm = self._address(attention.k_norm.weight)

    def _describe_dense(self, layer: Layer, ffn: SwiGLU) -> None:
        layer.gate, layer.up, layer.down = (self._matrix(part) for part in (ffn.gate, ffn.up, ffn.down))

    def _describe_experts(self, layer: Layer, ffn: MoE) -> None:
        router, experts = _unfolded(ffn.router), _unfolded(ffn.experts)
        layer.router = Matrix(FLOAT_ROWS, *router.weight.shape, self._address(router.weight))
        if router.bias_E is not None:
            layer.router_bias = self._address(router.bias_E)
        if isinstance(experts, Int8Experts):
            self._kept += experts.buffers()
            layer.gate_up, layer.experts_down = experts.matrices()
        elif isinstance(experts, RoutedExperts):
            for name, weight_EIO in (("gate_up", experts.gate_up_EDF), ("experts_down", experts.down_EFD)):
                _, inputs, outputs = weight_EIO.shape
                setattr(layer, name, Matrix(FLOAT_COLUMNS, outputs, inputs, self._address(weight_EIO)))
        else:
            raise _UnknownModuleError

    def _describe_model(self, model: Transformer) -> Model:
        config, attention, moe = model.config, model.config.attention, model.config.moe
        described = Model(
            width=config.width,
            layers=config.layers,
            heads=attention.heads,
            norm_eps=config.norm_eps,
            latent_norm_eps=LATENT_NORM_EPS,
            score_scale=cast(Block, model.layers[0]).attention.scale,
            ffn_width=max(layer.down.inputs for layer in self._layers),
            final_norm=self._address(model.norm.weight),
            layer=self._layers,
        )
        match attention:
            case MLAConfig():
                described.latent, described.kv_heads = 1, 1
                described.nope, described.rotated, described.value_dim = (
                    attention.nope_dim,
                    attention.rope_dim,
                    attention.v_dim,
                )
                described.rank, described.q_rank = attention.kv_rank, attention.q_rank or 0
            case GQAConfig():
                described.kv_heads, described.window = attention.kv_heads, attention.sliding_window or 0
                described.rotated = described.value_dim = config.head_dim
                norms = {None: NO_NORM, "head": NORM_OF_HEADS, "projection": NORM_OF_ALL}
                described.qk_norm = norms[attention.qk_norm]
        if moe is not None:
            described.routing = Routing(
                experts=moe.experts,
                chosen=moe.experts_per_token,
                groups=moe.groups,
                kept_groups=moe.groups_per_token,
                softmax=moe.scoring == "softmax",
                normalize=moe.normalize_gates,
                routed_scale=moe.routed_scale,
            )
        return described


def _unfolded(module: nn.Module) -> Any:
    """The plain module: of an adapter, its base, if that holds the delta."""
    if not isinstance(module, Adapter):
        return module
    if not module.is_folded:
        raise _UnknownModuleError
    return module.base
