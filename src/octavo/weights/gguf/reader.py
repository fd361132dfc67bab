"""GGUF files on their way in: header, metadata and places of tensors. No number is believed before it was checked.

`gguf.GGUFReader` trusts the file, and takes seconds for a vocabulary. This reads over a memory map, in about a tenth of
a second, and refuses in one line what does not fit the file: lengths, counts, types, offsets, overlaps.

Layout (little endian): magic, version, number of tensors and of keys; keys with their values; names, shapes, types and
offsets of tensors; padding; the tensors' data, each at a multiple of the alignment.
"""

import math
import mmap
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from octavo.errors import CheckpointError
from octavo.weights.source import shown

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Far above any model's (the largest vocabularies take 10 MB), so that a file with holes, which may be as large as it
# likes, cannot fill the memory with metadata.
_MOST_HEADER_BYTES = 1 << 26
_MOST_ELEMENTS = 1 << 23
_MOST_TENSORS = 1 << 17
_MOST_DIMENSIONS = 4

_NUMBERS = {
    GGUFValueType.UINT8: np.dtype("u1"),
    GGUFValueType.INT8: np.dtype("i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in the file."""

    name: str
    shape: tuple[int, ...]
    """Slowest axis first, as torch has it; the file has it the other way round."""
    kind: GGMLQuantizationType
    start: int
    """First byte, from the beginning of the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class GGUFFile:
    """An open file: metadata as plain values (numbers, strings, bools, lists of these), and what tensors there are."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    data: mmap.mmap

    def raw(self, name: str, part: int = 0, parts: int = 1) -> NDArray[np.uint8]:
        """The bytes of a tensor, or of one of `parts` equal runs of rows: a view of the file, not to outlive it."""
        info = self.tensors[name]
        size = info.size // parts
        return np.frombuffer(self.data, np.uint8, size, info.start + part * size)

    def close(self) -> None:
        """Let go of the file."""
        with suppress(BufferError):  # a view is left, in the traceback of an error: the map goes with it
            self.data.close()


def read_gguf(path: Path) -> GGUFFile:
    """Read all but the tensors' data. Raises CheckpointError naming the file, and the key or tensor where it is one."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{path}: expected a GGUF file, got something that is no regular file")
            if found.st_size < len(_MAGIC):
                raise CheckpointError(f"{path}: expected a GGUF file, got {found.st_size} bytes")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return _read(path, data)
    except BaseException:
        data.close()
        raise


class _Cursor:
    """A place in the header that moves on as it is read, and never beyond the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.path, self._data, self.place = path, data, 0
        self._end = min(len(data), _MOST_HEADER_BYTES)
        self._elements = 0

    def take(self, size: int, what: str) -> int:
        """Where the next `size` bytes begin, which are passed over. Raises CheckpointError where they are not there."""
        start = self.place
        if size > self._end - start:
            limit = "the file ends at" if self._end == len(self._data) else "no header is known to go beyond byte"
            raise CheckpointError(
                f"{self.path}: truncated or damaged: {shown(what)} needs {size:,} bytes from byte {start:,}, and "
                f"{limit} {self._end:,}"
            )
        self.place = start + size
        return start

    def numbers(self, dtype: np.dtype, count: int, what: str) -> list[Any]:
        start = self.take(count * dtype.itemsize, what)
        return np.frombuffer(self._data, dtype, count, start).tolist()

    def number(self, code: str, what: str) -> int:
        return self.numbers(np.dtype(code), 1, what)[0]

    def string(self, what: str) -> str:
        size_at = self.take(8, what)
        size = int.from_bytes(self._data[size_at : self.place], "little")
        start = self.take(size, what)
        try:
            return self._data[start : self.place].decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: {shown(what)} at byte {start:,} is not UTF-8") from None

    def value(self, kind: int, count: int, what: str) -> list[Any]:
        """`count` values of one type."""
        self._elements += count
        if self._elements > _MOST_ELEMENTS:
            raise CheckpointError(
                f"{self.path}: {shown(what)} brings the metadata to {self._elements:,} values; no model has more than "
                f"{_MOST_ELEMENTS:,}"
            )
        match kind:
            case GGUFValueType.STRING:
                return [self.string(what) for _ in range(count)]
            case GGUFValueType.BOOL:
                found = self.numbers(np.dtype("u1"), count, what)
                if max(found, default=0) > 1:
                    raise CheckpointError(f"{self.path}: {shown(what)} should be true or false, got {max(found)}")
                return [bool(number) for number in found]
            case GGUFValueType.ARRAY:
                raise CheckpointError(f"{self.path}: {shown(what)} is a list of lists, which no reader supports")
            case _ if kind in _NUMBERS:
                return self.numbers(_NUMBERS[GGUFValueType(kind)], count, what)
        raise CheckpointError(f"{self.path}: {shown(what)} has value type {kind}, which is not known")


def _read(path: Path, data: mmap.mmap) -> GGUFFile:
    cursor = _Cursor(data, path)
    tensor_count, key_count = _read_counts(cursor, data)
    metadata: dict[str, Any] = {}
    for number in range(key_count):
        key = cursor.string(f"the name of key {number}")
        if key in metadata:
            raise CheckpointError(f"{path}: key {shown(key)} occurs twice")
        kind = cursor.number("<u4", key)
        if kind == GGUFValueType.ARRAY:
            kind, count = cursor.number("<u4", key), cursor.number("<u8", key)
            metadata[key] = cursor.value(kind, count, key)
        else:
            (metadata[key],) = cursor.value(kind, 1, key)
    tensors: dict[str, TensorInfo] = {}
    alignment = _alignment(metadata, path)
    for number in range(tensor_count):
        info = _read_tensor(cursor, number)
        if info.name in tensors:
            raise CheckpointError(f"{path}: tensor {shown(info.name)} occurs twice")
        tensors[info.name] = info
    base = -(-cursor.place // alignment) * alignment
    return GGUFFile(path, metadata, _placed(tensors, base, alignment, len(data), path), data)


def _read_counts(cursor: _Cursor, data: mmap.mmap) -> tuple[int, int]:
    """Number of tensors and of keys, both within what the rest of the file could hold."""
    path = cursor.path
    magic = data[cursor.take(len(_MAGIC), "the magic") : cursor.place]
    if magic != _MAGIC:
        raise CheckpointError(f"{path}: expected a GGUF file, which begins with {_MAGIC!r}, got {magic!r}")
    version = cursor.number("<u4", "the version")
    if version & 0xFFFF == 0:
        raise CheckpointError(f"{path}: a big-endian GGUF file; convert it with gguf-convert-endian FILE little")
    if version not in _VERSIONS:
        raise CheckpointError(
            f"{path}: GGUF version {version} is not supported (known: 2 and 3); convert the original model anew"
        )
    tensor_count, key_count = cursor.number("<u8", "the number of tensors"), cursor.number("<u8", "the number of keys")
    left = len(data) - cursor.place
    # A key takes at least 8 + 4 + 1 bytes, a tensor 8 + 4 + 8 + 4 + 8.
    if tensor_count > min(left // 32, _MOST_TENSORS) or key_count > left // 13:
        raise CheckpointError(
            f"{path}: truncated or damaged: it names {tensor_count:,} tensors and {key_count:,} keys, in {left:,} bytes"
        )
    return tensor_count, key_count


def _alignment(metadata: Mapping[str, Any], path: Path) -> int:
    alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment should be a power of two, got {shown(alignment)}")
    return alignment


def _read_tensor(cursor: _Cursor, number: int) -> TensorInfo:
    """One entry; `start` is still counted from where the data begins."""
    name = cursor.string(f"the name of tensor {number}")
    where = f"{cursor.path}: tensor {shown(name)}"
    dimensions = cursor.number("<u4", name)
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise CheckpointError(f"{where} has {dimensions} dimensions, expected 1 to {_MOST_DIMENSIONS}")
    shape = tuple(reversed(cursor.numbers(np.dtype("<u8"), dimensions, name)))
    code, offset = cursor.number("<u4", name), cursor.number("<u8", name)
    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        raise CheckpointError(f"{where} has type {code}, which is not known") from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block:
        raise CheckpointError(f"{where} has shape {shape}, expected rows of whole {kind.name} blocks of {block}")
    return TensorInfo(name, shape, kind, offset, math.prod(shape) // block * block_bytes)


def _placed(
    tensors: Mapping[str, TensorInfo], base: int, alignment: int, end: int, path: Path
) -> dict[str, TensorInfo]:
    """The same with `start` counted from the beginning of the file, none beyond its end or into another."""
    free, before = base, ""
    for info in sorted(tensors.values(), key=lambda info: info.start):
        where = f"{path}: tensor {shown(info.name)}"
        if info.start % alignment:
            raise CheckpointError(f"{where} has offset {info.start:,}, no multiple of the alignment {alignment:,}")
        if base + info.start < free:
            raise CheckpointError(f"{where} overlaps {shown(before)}")
        free, before = base + info.start + info.size, info.name
        if free > end:
            raise CheckpointError(
                f"{where} reaches to byte {free:,}, and the file ends at {end:,}: truncated or damaged"
            )
    return {name: replace(info, start=base + info.start) for name, info in tensors.items()}
