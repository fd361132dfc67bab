"""Turn a model into one with int8 weights, for inference only, or make such a one beside it."""

import copy
from itertools import chain
from typing import Literal

import torch
from torch import nn

from octavo.errors import ConfigError
from octavo.model.experts import RoutedExperts
from octavo.model.int8 import Int8Embedding, Int8Experts, Int8Linear
from octavo.model.lora import adapters, has_lora, replace_module
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
    _round(model)


@torch.no_grad()
def quantized(model: Transformer, kind: Quantization) -> Transformer:
    """Such a model with the weights that `model` has now, adapters included; `model` stays as it is.

    What is not rounded is shared. Adapted matrices are made whole one after the other.
    """
    assert kind == "int8"
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    for path, adapter in adapters(twin).items():
        plain = adapter.merged()
        replace_module(twin, path, _rounded(path, plain) or plain)
    _round(twin)
    return twin


def _round(model: Transformer) -> None:
    model.eval()
    model.mtp = nn.ModuleList()
    for path, module in list(model.named_modules()):
        if rounded := _rounded(path, module):
            replace_module(model, path, rounded)


def _rounded(path: str, module: nn.Module) -> nn.Module | None:
    """What stands for the module; None if it is kept."""
    if path.rpartition(".")[2] in _KEPT:
        return None
    if isinstance(module, nn.Linear):
        return Int8Linear(module.weight, module.bias)
    if isinstance(module, nn.Embedding):
        return Int8Embedding(module.weight)
    return Int8Experts(module) if isinstance(module, RoutedExperts) else None


def is_quantized(model: Transformer) -> bool:
    """Whether `quantize` was here."""
    return isinstance(model.embed, Int8Embedding)
