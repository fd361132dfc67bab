"""Model folders as published: one safetensors file, or shards with an index; `mtp.safetensors` beside them; FP8 blocks.

Opening reads headers only, and the `safetensors` library checks that tensors neither overlap nor leave the file.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from octavo.errors import CheckpointError
from octavo.weights.fp8 import DEFAULT_BLOCK, SCALE_SUFFIX, dequantize, scale_shape
from octavo.weights.safetensors_damage import explain
from octavo.weights.source import TensorSource, shown

WEIGHTS, INDEX, MTP_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "mtp.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_FP8 = "F8_E4M3"
_READABLE = ("F32", "F16", "BF16", _FP8)
_MOST_JSON_BYTES = 200_000_000


class SafetensorsSource(TensorSource):
    """All tensors of a model folder. `fp8_block`: rows and columns that share a scale where weights are FP8."""

    def __init__(self, folder: Path, fp8_block: tuple[int, int] = DEFAULT_BLOCK) -> None:
        index = None if (folder / WEIGHTS).exists() else _read_index(folder)
        super().__init__(folder / (WEIGHTS if index is None else INDEX))
        paths = [folder / name for name in ((WEIGHTS,) if index is None else sorted(set(index.values())))]
        if (folder / MTP_WEIGHTS).exists():
            paths.append(folder / MTP_WEIGHTS)
        self._fp8_block = fp8_block
        self._handles: dict[Path, Any] = {}
        self._files: dict[str, Path] = {}
        try:
            for path in paths:
                self._open(path)
            for name, shard in (index or {}).items():
                if self._files.get(name) != folder / shard:
                    raise CheckpointError(
                        f"{self.where}: {shown(name)} should lie in {shard}, which does not hold it; fetch both again"
                    )
        except CheckpointError:
            self.close()
            raise
        self._names = frozenset(name for name in self._files if not self._is_scale(name))

    def names(self) -> frozenset[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        shape, dtype = self._header(name)
        if dtype not in _READABLE:
            raise CheckpointError(
                f"{self.file(name)}: {shown(name)} is of type {dtype}, expected one of {', '.join(_READABLE)}"
            )
        if dtype == _FP8:
            self._check_scale(name, shape)
        return shape

    def read(self, name: str) -> Tensor:
        tensor = self._read_raw(name)
        if tensor.dtype == torch.float8_e4m3fn:
            return dequantize(tensor, self._read_raw(name + SCALE_SUFFIX), self._fp8_block)
        return tensor.to(torch.float32)

    def file(self, name: str) -> Path:
        return self._files[name]

    def close(self) -> None:
        for handle in self._handles.values():
            handle.__exit__(None, None, None)
        self._handles.clear()

    def _open(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: not a file; expected safetensors")
        with _reading(path):
            # Not mapped into memory: what has been read would stay there, beside the model.
            handle = self._handles[path] = safe_open(path, framework="pt", backend="pread")
        for name in handle.keys():  # noqa: SIM118 (no mapping)
            if name in self._files:
                raise CheckpointError(f"{path}: {shown(name)} lies in {self._files[name].name} already; remove one")
            self._files[name] = path

    def _read_raw(self, name: str) -> Tensor:
        path = self._files[name]
        with _reading(path):
            return self._handles[path].get_tensor(name)

    def _header(self, name: str) -> tuple[tuple[int, ...], str]:
        slice_ = self._handles[self._files[name]].get_slice(name)
        return tuple(slice_.get_shape()), slice_.get_dtype()

    def _is_scale(self, name: str) -> bool:
        weight = name.removesuffix(SCALE_SUFFIX)
        return weight != name and weight in self._files and self._header(weight)[1] == _FP8

    def _check_scale(self, name: str, shape: tuple[int, ...]) -> None:
        path, scale = self.file(name), name + SCALE_SUFFIX
        if scale not in self._files or len(shape) != 2:
            raise CheckpointError(f"{path}: {shown(name)} is FP8; expected a matrix, and its scales as {shown(scale)}")
        found, dtype = self._header(scale)
        expected = scale_shape(shape, self._fp8_block)
        if found != expected or dtype not in ("F32", "F16", "BF16"):
            raise CheckpointError(
                f"{self.file(scale)}: {shown(scale)} has shape {shown(found)} and type {dtype}, expected {expected} "
                f"and F32 for blocks of {self._fp8_block}"
            )


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object: a config, an index. Raises CheckpointError naming the file, and `what` it should have been."""
    try:
        size = path.stat().st_size
        if size > _MOST_JSON_BYTES or not path.is_file():
            raise CheckpointError(f"{path}: expected {what} in JSON, got a file of {size:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a model folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected {what} in JSON: {shown(_one_line(error))}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected {what}, a JSON object, got {type(values).__name__}")
    return values


def pickle_refusal(path: Path) -> CheckpointError:
    """Why such a file is not opened."""
    return CheckpointError(
        f"{path}: pickled weights are refused, because opening them can run code; convert them with the safetensors "
        f"library, or fetch the model in its safetensors form"
    )


def _read_index(folder: Path) -> dict[str, str]:
    """Tensor -> name of its shard, which lies in the folder itself."""
    path = folder / INDEX
    if not path.exists():
        pickled = sorted(file for file in folder.glob("*") if file.suffix in PICKLES)
        if pickled:
            raise pickle_refusal(pickled[0])
        raise CheckpointError(f"{folder / WEIGHTS}: no such file, nor {INDEX}; expected a whole model folder")
    index = read_object(path, "an index of shards").get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
        raise CheckpointError(f"{path}: weight_map should name the shard of each tensor")
    for shard in set(index.values()):
        if Path(shard).suffix in PICKLES:
            raise pickle_refusal(folder / Path(shard).name)
        # A name with a folder in it could lead anywhere on this machine.
        if Path(shard).name != shard or not shard.isprintable() or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{path}: a shard should be a .safetensors file beside it, got {shown(repr(shard))}")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard}: no such file, though {INDEX} names it; fetch it too")
    return index


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a whole model folder") from error
    except (OSError, SafetensorError) as error:
        reason = explain(path) or shown(_one_line(error))
        raise CheckpointError(f"{path}: cannot be read as safetensors: {reason}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
