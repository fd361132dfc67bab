"""A GGUF file as a source of tensors: Hugging Face names and layouts, dequantized one by one, experts one by one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo.errors import CheckpointError
from octavo.weights.gguf.config import config_of
from octavo.weights.gguf.kinds import READABLE, dequantize
from octavo.weights.gguf.layouts import join_up, pair_halves
from octavo.weights.gguf.names import (
    BLOCK,
    BOTH_UP,
    EXPERTS,
    EXPERTS_GATE_UP,
    IN_BLOCK,
    KEYS_UP,
    MODEL,
    REPEATED,
    VALUES_UP,
)
from octavo.weights.gguf.reader import GGUFFile, TensorInfo, read_gguf
from octavo.weights.gguf.rope import ROPE_FACTORS
from octavo.weights.source import TensorSource, shown

# llama.cpp's own limit is 1,024; a file may name no more, so that a table of its experts stays small.
_MOST_EXPERTS = 4096


class GGUFSource(TensorSource):
    """The tensors of one file. Raises CheckpointError naming file and tensor or key for what is damaged."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gguf = read_gguf(path)
        try:
            self.config = config_of(self.gguf)
            """What config.json would say."""
            self._parts = _parts(self.gguf, self.config)
        except BaseException:
            self.close()
            raise
        self._names = frozenset(self._parts)

    def names(self) -> frozenset[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        part = self._parts[name]
        for info in part.infos:
            if info.kind not in READABLE:
                known = ", ".join(sorted(kind.name for kind in READABLE))
                raise CheckpointError(
                    f"{self.where}: tensor {shown(info.name)} is {info.kind.name}, which is not supported "
                    f"(known: {known})"
                )
        return part.shape

    def read(self, name: str) -> Tensor:
        self.shape(name)  # refuses what cannot be read
        return self._parts[name].read(self.gguf)

    def close(self) -> None:
        self.gguf.close()


class _Part(ABC):
    """What a Hugging Face tensor is made of."""

    infos: tuple[TensorInfo, ...]
    shape: tuple[int, ...]

    @abstractmethod
    def read(self, file: GGUFFile) -> Tensor: ...


@dataclass(frozen=True)
class _Run(_Part):
    """A whole tensor, or one of equal runs of it: an expert of a stack."""

    info: TensorInfo
    shape: tuple[int, ...]
    part: int = 0
    parts: int = 1

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        return (self.info,)

    def read(self, file: GGUFFile) -> Tensor:
        raw = file.raw(self.info.name, self.part, self.parts)
        return torch.from_numpy(dequantize(raw, self.info.kind)).view(self.shape)


@dataclass(frozen=True)
class _Heads(_Part):
    """Queries or keys of a Llama."""

    whole: _Run
    heads: int

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        return self.whole.infos

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    def read(self, file: GGUFFile) -> Tensor:
        return pair_halves(self.whole.read(file), self.heads)


@dataclass(frozen=True)
class _Up(_Part):
    """W_kvb, out of its keys [N, C, H] and its values [N, V, C]."""

    keys: _Run
    values: _Run

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        return (self.keys.info, self.values.info)

    @property
    def shape(self) -> tuple[int, ...]:
        (heads, rank, nope), v_dim = self.keys.shape, self.values.shape[1]
        return heads * (nope + v_dim), rank

    def read(self, file: GGUFFile) -> Tensor:
        return join_up(self.keys.read(file), self.values.read(file))


def _parts(file: GGUFFile, config: dict[str, Any]) -> dict[str, _Part]:
    """Hugging Face name -> what it is made of. Tensors that are not known keep llama.cpp's name."""
    parts: dict[str, _Part] = {}
    for name, info in file.tensors.items():
        block = IN_BLOCK.fullmatch(name)
        if name == ROPE_FACTORS or (block and block[2] in REPEATED):
            continue
        if block is None:
            parts[MODEL.get(name, name)] = _Run(info, info.shape)
            continue
        layer, leaf = f"model.layers.{int(block[1])}", block[2]
        if leaf in EXPERTS or leaf == EXPERTS_GATE_UP:
            for expert, kind, run in _experts(info, leaf, file):
                parts[f"{layer}.mlp.experts.{expert}.{kind}"] = run
        elif leaf in (KEYS_UP, VALUES_UP):
            # Some files hold the joined tensor as well.
            if f"blk.{block[1]}.{BOTH_UP}" not in file.tensors:
                parts[f"{layer}.self_attn.kv_b_proj.weight"] = _up(f"blk.{block[1]}.", file)
        elif leaf in BLOCK:
            parts[f"{layer}.{BLOCK[leaf]}"] = _alike(info, leaf, file, config)
        else:
            parts[name] = _Run(info, info.shape)
    return parts


def _alike(info: TensorInfo, leaf: str, file: GGUFFile, config: dict[str, Any]) -> _Part:
    whole = _Run(info, info.shape)
    if config["model_type"] != "llama" or leaf.split(".")[0] not in ("attn_q", "attn_k"):
        return whole
    heads = config["num_attention_heads" if leaf.startswith("attn_q") else "num_key_value_heads"]
    if not heads or info.shape[0] % (2 * heads):
        raise CheckpointError(
            f"{file.path}: tensor {shown(info.name)} has {info.shape[0]:,} rows, which are not {heads:,} heads of even "
            "size"
        )
    return _Heads(whole, heads)


def _experts(info: TensorInfo, leaf: str, file: GGUFFile) -> list[tuple[int, str, _Run]]:
    """Number, name and place of each expert's matrices in a tensor that holds all of them."""
    if len(info.shape) != 3 or info.shape[0] > _MOST_EXPERTS or (leaf == EXPERTS_GATE_UP and info.shape[1] % 2):
        raise CheckpointError(
            f"{file.path}: tensor {shown(info.name)} has shape {info.shape}, expected matrices of at most "
            f"{_MOST_EXPERTS:,} experts"
        )
    experts, rows, columns = info.shape
    if leaf in EXPERTS:
        return [(e, EXPERTS[leaf], _Run(info, (rows, columns), e, experts)) for e in range(experts)]
    halves = (("gate_proj.weight", 0), ("up_proj.weight", 1))
    half = (rows // 2, columns)
    return [(e, kind, _Run(info, half, 2 * e + i, 2 * experts)) for e in range(experts) for kind, i in halves]


def _up(prefix: str, file: GGUFFile) -> _Up:
    keys, values = file.tensors.get(prefix + KEYS_UP), file.tensors.get(prefix + VALUES_UP)
    if keys is None or values is None:
        raise CheckpointError(f"{file.path}: tensor {prefix}{KEYS_UP if keys is None else VALUES_UP} is missing")
    fits = len(keys.shape) == len(values.shape) == 3
    if not fits or (keys.shape[0], keys.shape[1]) != (values.shape[0], values.shape[2]):
        raise CheckpointError(
            f"{file.path}: tensors {shown(keys.name)} of shape {keys.shape} and {shown(values.name)} of shape "
            f"{values.shape} are not keys [heads, rank, size] and values [heads, size, rank]"
        )
    return _Up(_Run(keys, keys.shape), _Run(values, values.shape))
