"""What is wrong with a file that the `safetensors` library refuses: its reasons seldom name the tensor.

A file is 8 bytes (the header's length, little-endian), the header (JSON: name -> dtype, shape, data_offsets), the data.
"""

import json
import math
from pathlib import Path
from typing import Any

from octavo.weights.source import shown

_MOST_HEADER_BYTES = 100_000_000  # the library's own limit
_GIT_LFS = b"version https://git-lfs"
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1}


def explain(path: Path) -> str | None:
    """One line about the first damage found; None where this reader finds none."""
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            start = file.read(len(_GIT_LFS))
            if start == _GIT_LFS:
                return "it is a pointer of Git LFS, not the weights; run git lfs pull"
            header_bytes = int.from_bytes(start[:8], "little")
            if size < 8 or header_bytes > min(size - 8, _MOST_HEADER_BYTES):
                return f"of {size:,} bytes it should have a header of {header_bytes:,}: truncated, or another format"
            file.seek(8)
            header = json.loads(file.read(header_bytes))
        tensors = [(name, facts) for name, facts in header.items() if name != "__metadata__"]
        return _first_misplaced(tensors, size - 8 - header_bytes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _first_misplaced(tensors: list[tuple[str, dict[str, Any]]], data_bytes: int) -> str | None:
    """The data must be covered by the tensors, one right behind the other."""
    covered = 0
    for name, facts in sorted(tensors, key=lambda item: item[1]["data_offsets"]):
        begin, end = facts["data_offsets"]
        where = f"tensor {shown(name)} lies at bytes {begin:,} to {end:,} of the data"
        if end > data_bytes:
            return f"{where}, of which the file has {data_bytes:,}: truncated or damaged"
        if begin != covered:
            return f"{where}, expected from {covered:,}: it overlaps another, or leaves a gap"
        wanted = math.prod(facts["shape"]) * _BYTES.get(facts["dtype"], 0)
        if wanted != end - begin and facts["dtype"] in _BYTES:
            return f"{where}, but {facts['dtype']} of shape {shown(facts['shape'])} has {wanted:,} bytes"
        covered = end
    return None if covered == data_bytes else f"{data_bytes - covered:,} bytes behind the last tensor belong to none"
