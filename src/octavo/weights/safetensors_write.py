"""Weights into safetensors files: one file, or shards with an index where one would be too large to handle."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from octavo.checkpoint import safetensors_chunks, write_chunks
from octavo.errors import CheckpointError
from octavo.weights.safetensors import INDEX, WEIGHTS

_METADATA = {"format": "pt"}
# Added to scores whose differences it must not round away; published models keep it in float32 too.
_ALWAYS_FLOAT32 = "e_score_correction_bias"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """One file. In memory there is one tensor of it at a time, beside `tensors` itself.

    Raises CheckpointError naming a tensor whose values the type cannot hold.
    """
    dtypes = {name: torch.float32 if name.endswith(_ALWAYS_FLOAT32) else dtype for name in tensors}
    for name, tensor in tensors.items():
        if dtypes[name] != tensor.dtype and tensor.numel():
            largest = float(torch.stack(tensor.aminmax()).abs().max())
            if largest > torch.finfo(dtype).max:
                raise CheckpointError(
                    f"{path.name}: {name} holds {largest:.4g}, more than {dtype} can: use bfloat16 or float32"
                )
    write_chunks(path, safetensors_chunks(tensors, dtypes, _METADATA))


def write_sharded(folder: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, shard_bytes: int) -> None:
    """`model.safetensors`, or `model-00001-of-0000N.safetensors` and their index; a shard holds at most `shard_bytes`.

    A tensor that is larger than that is a shard by itself. Raises as `write_tensors`.
    """
    shards = list(_shards(tensors, dtype, shard_bytes))
    if len(shards) == 1:
        write_tensors(folder / WEIGHTS, tensors, dtype)
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(path, shard, dtype)
        index |= dict.fromkeys(shard, path.name)
    total_bytes = sum(tensor.numel() * dtype.itemsize for tensor in tensors.values())
    content = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(index.items()))}
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, Tensor], dtype: torch.dtype, most_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * dtype.itemsize
        if shard and filled + size > most_bytes:
            yield shard
            shard, filled = {}, 0
        shard[name] = tensor
        filled += size
    yield shard
