"""Low-rank adaptation (LoRA, Hu et al. 2021): frozen weights W, and beside each of them a learned delta of low rank.

`add_lora` puts adapters around the matrices of a model from outside; the model knows nothing of it. A forward pass
computes x W^T + scale (x A^T) B^T and never W + scale B A, so that no gradient, optimizer state or copy as large as W
exists. Sampling goes through the same adapters, so it draws from the weights that are trained, whatever the step;
`folded` makes many small passes faster for the price of a copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import Field
from torch import nn

from octavo.config import Config
from octavo.errors import ConfigError
from octavo.model.experts import RoutedExperts
from octavo.model.lora_layers import LoraExperts, LoraLinear, LoraMatrix, LoraRouter
from octavo.model.router import Router
from octavo.model.transformer import Transformer

Target = Literal["attention", "ffn", "experts", "router"]

_LAYERS = {nn.Linear: LoraLinear, RoutedExperts: LoraExperts, Router: LoraRouter}
# Grouped matrix products want rows that begin at multiples of 16 bytes.
_EXPERT_RANK_MULTIPLE = 4


class LoraConfig(Config):
    """Low-rank adapters."""

    rank: int = Field(default=16, gt=0)
    """Rank of each delta. Of routed experts, each has its own delta of this rank, and it must be a multiple of 4."""
    alpha: float = Field(default=32.0, gt=0)
    """Deltas are multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that are dropped in training. In reinforcement learning it must be 0: the learner
    would differ from the sampler."""
    targets: tuple[Target, ...] = Field(default=("attention", "ffn", "experts"), min_length=1)
    """What gets adapters: projections of attention; the dense feed-forward and shared experts; routed experts; the
    router's weights. Biases never change: an adapter has no place for them."""


def add_lora(model: Transformer, config: LoraConfig) -> None:
    """Freeze the model and put fresh adapters around its targets, in place; at first they change nothing.

    Those of multi-token prediction are left alone. Draws from the current random state. Raises ConfigError if the model
    has none of the targets, has adapters already, or has experts for which the rank is no multiple of 4.
    """
    paths = [path for target in config.targets for path in _places(model, target)]
    if not paths:
        raise ConfigError(f"lora.targets: the model has no {' or '.join(config.targets)} to adapt")
    wrap(model, paths, config)


def wrap(model: Transformer, paths: list[str], config: LoraConfig) -> None:
    """As `add_lora`, with the modules named one by one, whatever `config.targets` says."""
    if has_lora(model):
        raise ConfigError("the model has adapters already: merge them first")
    if config.rank % _EXPERT_RANK_MULTIPLE and any(
        isinstance(model.get_submodule(path), RoutedExperts) for path in paths
    ):
        raise ConfigError(f"lora.rank must be a multiple of {_EXPERT_RANK_MULTIPLE} for experts, got {config.rank}")
    model.requires_grad_(False)
    scale = config.alpha / config.rank
    for path in paths:
        module = model.get_submodule(path)
        replace_module(model, path, _LAYERS[type(module)](module, config.rank, scale, config.dropout))


def merge_lora(model: Transformer) -> None:
    """Add the deltas to the weights and take the adapters off, in place: the plain model, trainable again.

    Without adapters nothing happens.
    """
    for adapter in adapters(model).values():
        adapter.fold(keep=False)
    drop_lora(model)


def drop_lora(model: Transformer) -> None:
    """Take the adapters off, in place: the model as it was before `add_lora`."""
    for path, adapter in adapters(model).items():
        replace_module(model, path, adapter.base)
    model.requires_grad_(True)


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Inside, base weights hold the deltas, and passes cost what they cost without adapters; for sampling only.

    Takes a copy of the adapted weights for as long. Afterwards the weights are as before, bit for bit. Without adapters
    nothing happens.
    """
    found = adapters(model).values()
    try:
        for adapter in found:
            adapter.fold(keep=True)
        yield
    finally:
        for adapter in found:
            if adapter.is_folded:
                adapter.unfold()


def has_lora(model: nn.Module) -> bool:
    """Whether the model carries adapters."""
    return bool(adapters(model))


def adapters(model: nn.Module) -> dict[str, LoraMatrix | LoraExperts]:
    """Adapters by the path of the module that they stand for."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraMatrix | LoraExperts)}


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module at `path`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _places(model: Transformer, target: Target) -> Iterator[str]:
    for path, module in model.layers.named_modules(prefix="layers"):
        match target:
            case "attention" | "ffn":
                fits = isinstance(module, nn.Linear) and path.split(".")[2] == target
            case "experts":
                fits = isinstance(module, RoutedExperts)
            case "router":
                fits = isinstance(module, Router)
        if fits:
            yield path
