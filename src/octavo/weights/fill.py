"""Weights from any source into a model: all is checked before memory is taken, then copied tensor by tensor."""

import math
import re

import psutil
import torch
from torch import Tensor

from octavo.errors import CheckpointError
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.names import hugging_face_views
from octavo.weights.source import TensorSource, shown

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Buffers that can be computed from the config; older tools saved them all the same.
_COMPUTED = re.compile(r"(.+\.)?rotary_emb\.inv_freq")
# DeepSeek's MTP layers repeat what they share with the main model.
_REPEATED = re.compile(r"model\.layers\.(\d+)\.(embed_tokens|shared_head\.head)\.weight")


def build_model(config: ModelConfig, source: TensorSource) -> Transformer:
    """A new model with the weights of `source`. Peak memory is the model and one tensor.

    Nothing is allocated before every tensor is known to be there in the config's shape: a small file that asks for a
    model of terabytes takes no memory. Raises CheckpointError naming the file, and the tensor where it is one.
    """
    _check_size(config, source)
    blueprint = Transformer.blueprint(config)
    _check_tensors(blueprint, source)
    _check_memory(blueprint, source)
    model = Transformer.empty(config)
    _copy(model, source)
    return model


def fill_model(model: Transformer, source: TensorSource) -> None:
    """Overwrite all weights of a model. Raises CheckpointError naming the file, and the tensor where it is one.

    The model is as before if tensors are missing, unexpected or misshapen, but not if one turns out unreadable or NaN.
    """
    _check_tensors(model, source)
    _copy(model, source)


def _check_size(config: ModelConfig, source: TensorSource) -> None:
    """Refuse sizes far beyond what the files hold by arithmetic alone: even a model without memory has modules.

    What is off by less than this is left to `_check_tensors`, which can name a tensor.
    """
    names = source.names()
    layers = config.layers + config.mtp_layers
    least = layers
    if config.moe:
        least += config.moe.experts * max(layers - config.moe.leading_dense_layers, 0)
    if least > len(names):
        raise CheckpointError(
            f"{source.where}: {len(names):,} tensors, too few for the {layers:,} layers "
            f"{f'of {config.moe.experts:,} experts ' if config.moe else ''}that the config describes"
        )
    costs = Accounting.of(config)
    wanted = costs.total_parameters + costs.mtp_parameters
    held = sum(math.prod(source.shape(name)) for name in names)
    if wanted > 4 * held:
        raise CheckpointError(
            f"{source.where}: holds {held:,} parameters, the config describes a model of {wanted:,}; are they of the "
            "same model, and are all files there?"
        )


def _check_tensors(model: Transformer, source: TensorSource) -> None:
    main, mtp = hugging_face_views(model)
    views, names = main | mtp, source.names()
    missing = sorted(views.keys() - names)
    unexpected = sorted(name for name in names - views.keys() if not _superfluous(name, model.config))
    if missing or unexpected:
        counts = f"({len(missing)} missing, {len(unexpected)} unexpected tensors)"
        if not missing:
            name = unexpected[0]
            raise CheckpointError(f"{source.file(name)}: {shown(name)} is not part of the config's model {counts}")
        advice = ""
        if mtp and missing == sorted(mtp):
            advice = "; for a copy without multi-token prediction, set num_nextn_predict_layers to 0 in config.json"
        raise CheckpointError(f"{source.where}: {missing[0]} is missing {counts}{advice}")
    if model.config.tie_embeddings and _HEAD in names:
        views[_HEAD] = views[_EMBEDDING]
    for name, view in views.items():
        found, expected = source.shape(name), tuple(view.shape)
        if found != expected:
            raise CheckpointError(f"{source.file(name)}: {name} has shape {shown(found)}, the config says {expected}")


def _check_memory(model: Transformer, source: TensorSource) -> None:
    # Not the file's size: a file with holes is as large as it likes.
    needed = sum(tensor.nbytes for tensor in model.state_dict().values())
    free = psutil.virtual_memory().available
    if needed > free:
        raise CheckpointError(
            f"{source.where}: the model needs {needed / 1e9:,.1f} GB of memory in float32, this machine has "
            f"{free / 1e9:,.1f} GB free"
        )


def _copy(model: Transformer, source: TensorSource) -> None:
    main, mtp = hugging_face_views(model)
    for name, view in (main | mtp).items():
        tensor = source.read(name)
        if not is_finite(tensor):
            raise CheckpointError(f"{source.file(name)}: {name} holds NaN or infinity: use an earlier checkpoint")
        view.copy_(tensor)
    tied = model.config.tie_embeddings and _HEAD in source.names()
    if tied and not torch.equal(source.read(_HEAD), main[_EMBEDDING]):
        raise CheckpointError(
            f"{source.file(_HEAD)}: {_HEAD} is not {_EMBEDDING}, as the config says: set tie_word_embeddings to false"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite, without a mask as large as the tensor."""
    return tensor.numel() == 0 or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def _superfluous(name: str, config: ModelConfig) -> bool:
    """Known tensors that the model has no place for, because it has their content already."""
    if name == _HEAD:
        return config.tie_embeddings
    repeated = _REPEATED.fullmatch(name)
    if repeated:
        return config.layers <= int(repeated[1]) < config.layers + config.mtp_layers
    return _COMPUTED.fullmatch(name) is not None
