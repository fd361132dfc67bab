"""A model's tensors as llama.cpp wants them: its names and layouts, experts stacked, W_kvb split.

Three of its ways decide more than names, and models of another form are written as equal ones of that form:
- It takes a deepseek2 for one without a query rank by the number of layers alone (`config.is_lite`). Any other without
  one gets one: see `_with_query_rank`.
- A deepseek2 has a shared expert. Where there is none, one of zeros adds nothing.
- An olmoe has a head of its own. Where it is the embedding, it is written twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octavo.model.attention import LATENT_NORM_EPS
from octavo.weights.gguf.config import is_lite
from octavo.weights.gguf.layouts import pair_neighbours, split_up
from octavo.weights.gguf.names import (
    BLOCK,
    BOTH_UP,
    EXPERTS,
    IN_EXPERT,
    IN_LAYER,
    KEYS_UP,
    MODEL,
    VALUES_UP,
)

_NAMES = {theirs: ours for ours, theirs in (MODEL | BLOCK).items()}
_STACKS = {theirs: ours for ours, theirs in EXPERTS.items()}


@dataclass(frozen=True)
class Outgoing:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    runs: tuple[Tensor, ...]
    """Views of the model, whose values one after the other are those of the tensor."""


def adapted(values: dict[str, Any], views: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and Hugging Face tensors of a model that computes the same in a form that llama.cpp knows."""
    values, views = dict(values), dict(views)
    if values["model_type"] == "olmoe":
        views.setdefault("lm_head.weight", views["model.embed_tokens.weight"])
    if not values["model_type"].startswith("deepseek"):
        return values, views
    if values["n_shared_experts"] == 0:
        for name, view in views.items():
            if ".shared_experts." in name:
                shape = [size or values["moe_intermediate_size"] for size in view.shape]
                views[name] = torch.zeros(()).expand(shape)
    if values["q_lora_rank"] is None and not is_lite(values["num_hidden_layers"], values["vocab_size"]):
        return _with_query_rank(values, views)
    return values, views


def outgoing_tensors(architecture: str, values: dict[str, Any], views: dict[str, Tensor]) -> Iterator[Outgoing]:
    """The tensors of a file of that architecture, for the model of a config.json and its Hugging Face views."""
    stacks: dict[str, list[Tensor]] = {}
    for name, view in views.items():
        layer = IN_LAYER.fullmatch(name)
        if layer is None:
            yield Outgoing(_NAMES[name], tuple(view.shape), (view,))
            continue
        block, leaf = f"blk.{layer[1]}.", layer[2]
        expert = IN_EXPERT.fullmatch(leaf)
        if expert:
            stacks.setdefault(block + _STACKS[expert[2]], []).append(view)
        elif _NAMES[leaf] == BOTH_UP:
            parts = split_up(view, values["num_attention_heads"], values["qk_nope_head_dim"])
            for part, new in zip(parts, (KEYS_UP, VALUES_UP), strict=True):
                yield Outgoing(block + new, tuple(part.shape), (part,))
        elif architecture == "llama" and leaf.startswith(("self_attn.q_proj.", "self_attn.k_proj.")):
            heads = values["num_attention_heads" if ".q_proj." in leaf else "num_key_value_heads"]
            yield Outgoing(block + _NAMES[leaf], tuple(view.shape), (pair_neighbours(view, heads),))
        else:
            yield Outgoing(block + _NAMES[leaf], tuple(view.shape), (view,))
    for name, stack in stacks.items():
        yield Outgoing(name, (len(stack), *stack[0].shape), tuple(stack))


def _with_query_rank(values: dict[str, Any], views: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give latent attention without a query rank that of the width: q = W_q (w * n) = W_q (w' * norm(W_a (w * n))).

    Here w * n, n = x / sqrt(mean(x^2) + e), is what the norm before attention gives, and W_a the diagonal s / w. So
    norm(s n) has to be n times a constant, and it is, but for a part of s^2 / (s^2 + e) of e / 2 mean(x^2): the smaller
    s, the less. The constant and w go into w'. All other weights are as they were.
    """
    views, width, epsilon = dict(views), values["hidden_size"], values["rms_norm_eps"]
    # llama.cpp normalizes latents with the model's epsilon, we with that of the released ones. Where they differ, s is
    # 1, so that neither matters much; else the smallest normal float16, for hardware that computes in that.
    scale = 2.0**-14 if epsilon == LATENT_NORM_EPS else 1.0
    diagonal = torch.arange(width).expand(2, width)
    for layer in range(values["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention, norm = prefix + "self_attn.", views[prefix + "input_layernorm.weight"].detach()
        # Where w is 0, n is lost, and was not used.
        inverse = torch.where(norm.abs() > 1e-30, scale / norm, 0.0)
        views[attention + "q_a_proj.weight"] = torch.sparse_coo_tensor(diagonal, inverse, check_invariants=True)
        views[attention + "q_a_layernorm.weight"] = norm * (math.sqrt(scale**2 + epsilon) / scale)
        views[attention + "q_b_proj.weight"] = views.pop(attention + "q_proj.weight")
    return values | {"q_lora_rank": width}, views
