"""Adapters in the layout of `peft`: adapter_config.json and adapter_model.safetensors, in and out.

A linear layer has `base_model.model.<module>.lora_A.weight` [r, in] and `lora_B.weight` [out, r]. Routed experts, which
`transformers` holds stacked, are `target_parameters`: gate_up_proj stands under `mlp.experts.base_layer`, down_proj
under `mlp.experts`, lora_A as [E r, in] (expert by expert), lora_B as [out, r E] (rank by rank). See `peft_layout`.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from octavo.checkpoint import write_folder
from octavo.errors import CheckpointError, ConfigError
from octavo.model.lora import LoraConfig, adapters, drop_lora, wrap
from octavo.model.lora_layers import LoraExperts
from octavo.model.transformer import Transformer
from octavo.weights.fill import is_finite
from octavo.weights.peft_layout import factors_of, is_gate_up, paths_of, targets_of, unstack
from octavo.weights.safetensors import PICKLES, pickle_refusal, read_object
from octavo.weights.safetensors_write import write_tensors
from octavo.weights.source import shown

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_NAME = re.compile(re.escape(_PREFIX) + r"(.+)\.lora_([AB])\.weight")
# Keys of adapter_config.json that have one meaning here; a file that says otherwise describes another adapter.
_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    # Others change the base's weights as well.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


def save_adapter(folder: Path, model: Transformer, config: LoraConfig, base: str) -> None:
    """Write the adapters of a model that was wrapped with `config`, whole or not at all. `base` names the model that
    they belong to. Raises StorageError.
    """
    tensors: dict[str, Tensor] = {}
    for module, a, b in factors_of(model):
        tensors |= {f"{_PREFIX}{module}.lora_A.weight": a, f"{_PREFIX}{module}.lora_B.weight": b}
    modules, parameters = targets_of(model)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        # Of training only, and peft refuses it together with parameters.
        "lora_dropout": 0.0 if parameters else config.dropout,
        "target_modules": modules,
        "target_parameters": parameters or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }
    with write_folder(folder) as unfinished:
        (unfinished / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        write_tensors(unfinished / WEIGHTS, tensors, torch.float32)


def adapter_base(folder: Path) -> str:
    """What the adapters of a folder belong to, as it says itself. Raises CheckpointError."""
    return str(read_object(folder / CONFIG, "an adapter config").get("base_model_name_or_path"))


def load_adapter(folder: Path, model: Transformer) -> LoraConfig:
    """Put the adapters of a folder, ours or peft's, around a plain model; returns what they were made with.

    Raises CheckpointError naming the file, and the tensor where it is one: missing, misshapen, not a number, of a
    module that cannot be adapted here. The model is then as before.
    """
    config, target_parameters = _read_config(folder / CONFIG)
    where = folder / WEIGHTS
    factors = _read_factors(folder)
    try:
        paths = paths_of(model, factors)
        wrap(model, list(dict.fromkeys(paths.values())), config)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    wrapped = adapters(model)
    places: dict[str, tuple[Tensor, Tensor]] = {}
    for module, path in paths.items():
        adapter = wrapped[path]
        if isinstance(adapter, LoraExperts):
            gate_up, down = adapter.deltas()
            places[module] = (gate_up if is_gate_up(module, factors, target_parameters) else down)[1:]
        else:
            places[module] = adapter.lora_A, adapter.lora_B
    # One matrix may be square, the two of an expert cannot be: together they tell how they lie.
    stacked = [module for module, (ours_a, _) in places.items() if ours_a.ndim == 3]
    swapped = any(factors[module][0].shape[1] != places[module][0].shape[1] for module in stacked)
    try:
        for module, (a, b) in factors.items():
            if module in stacked:
                a, b = unstack(a, b, *places[module], swapped)
            for side, tensor, ours in zip("AB", (a, b), places[module], strict=True):
                _copy(tensor, ours, f"lora_{side}.weight")
    except CheckpointError as error:
        drop_lora(model)
        raise CheckpointError(f"{where}: {shown(module)}: {error}") from error
    return config


@torch.no_grad()
def _copy(tensor: Tensor, into: Tensor, side: str) -> None:
    if tensor.shape != into.shape:
        raise CheckpointError(f"{side} has shape {tuple(tensor.shape)}, expected {tuple(into.shape)}")
    if not is_finite(tensor):
        raise CheckpointError(f"{side} holds NaN or infinity: use an earlier checkpoint")
    into.copy_(tensor)


def _read_config(path: Path) -> tuple[LoraConfig, list[str]]:
    """What the adapters were made with, and their target_parameters."""
    values = read_object(path, "an adapter config")
    for key, allowed in _FIXED.items():
        if values.get(key, allowed[0]) not in allowed:
            raise CheckpointError(f"{path}: {key} is {shown(repr(values[key]))}, and only {allowed[0]!r} is supported")
    try:
        config = LoraConfig.parse({"rank": values["r"], "alpha": values["lora_alpha"]})
    except KeyError as error:
        raise CheckpointError(f"{path}: {error.args[0]} is missing") from error
    except ConfigError as error:
        raise CheckpointError(f"{path}: r or lora_alpha: {error}") from error
    if values.get("use_rslora"):  # scale alpha / sqrt(r)
        config = LoraConfig(rank=config.rank, alpha=config.alpha * math.sqrt(config.rank))
    parameters = values.get("target_parameters") or []
    return config, [str(name) for name in parameters] if isinstance(parameters, list) else []


def _read_factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """lora_A and lora_B of each module that the file names."""
    where = folder / WEIGHTS
    pickled = [folder / f"adapter_model{ending}" for ending in PICKLES]
    for path in pickled:
        if path.exists() and not where.exists():
            raise pickle_refusal(path)
    try:
        tensors = load_file(where)
    except FileNotFoundError as error:
        raise CheckpointError(f"{where}: no such file; expected a whole adapter folder") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{where}: cannot be read as safetensors: {' '.join(str(error).split())}") from error
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: {shown(name)} of shape {tuple(tensor.shape)} is no factor of LoRA: expected matrices named "
                f"{_PREFIX}<module>.lora_A.weight and .lora_B.weight"
            )
        found.setdefault(match[1], {})[match[2]] = tensor.float()
    for module, sides in found.items():
        if sides.keys() != {"A", "B"}:
            raise CheckpointError(f"{where}: {shown(module)} has lora_{min(sides)} only; expected lora_A and lora_B")
    if not found:
        raise CheckpointError(f"{where}: holds no adapter")
    return {module: (sides["A"], sides["B"]) for module, sides in found.items()}
