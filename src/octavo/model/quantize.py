"""Turn a model into one with int8 weights, for inference only."""

from typing import Literal

import torch
from torch import nn

from octavo.errors import ConfigError
from octavo.model.experts import RoutedExperts
from octavo.model.int8 import Int8Embedding, Int8Experts, Int8Linear
from octavo.model.lora import has_lora
from octavo.model.transformer import Transformer

Quantization = Literal["int8"]

_KEPT = ("kv_b",)
"""Matrices that stay as they are; see int8.py."""


@torch.no_grad()
def quantize(model: Transformer, kind: Quantization) -> None:
    """Round the model's matrices in place: projections, experts, embedding and head. Training is over then.

    One matrix after the other, so that no second model exists in between. Multi-token prediction is dropped, which
    nothing but training uses. Raises ConfigError for adapters that are not merged.
    """
    assert kind == "int8"
    if has_lora(model):
        raise ConfigError("a model with adapters cannot be quantized: merge them first")
    model.requires_grad_(False)
    model.eval()
    model.mtp = nn.ModuleList()
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in _KEPT:
            continue
        if isinstance(module, nn.Linear):
            replaced = Int8Linear(module.weight, module.bias)
        elif isinstance(module, nn.Embedding):
            replaced = Int8Embedding(module.weight)
        elif isinstance(module, RoutedExperts):
            replaced = Int8Experts(module)
        else:
            continue
        holder = model.get_submodule(parent)
        if isinstance(holder, nn.Sequential):
            holder[int(name)] = replaced
        else:
            setattr(holder, name, replaced)


def is_quantized(model: Transformer) -> bool:
    """Whether `quantize` was here."""
    return isinstance(model.embed, Int8Embedding)
