"""Types of tensors in GGUF files: float32 <-> blocks of bytes. The arithmetic is that of the `gguf` package."""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from gguf.quants import dequantize as dequantize_rows
from gguf.quants import quantize as quantize_rows
from numpy.typing import NDArray

READABLE = frozenset(
    GGMLQuantizationType[name]
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
)
FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
"""What can be written: the kind of most tensors, and what `general.file_type` calls it."""

# The package works on 16 rows at a time, which costs more in calls than in arithmetic where rows are short. Blocks do
# not know of rows, so they are given as long rows of so many values, which fit into the cache.
_RUN = 1 << 16


def dequantize(raw: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """Bytes of whole blocks -> their values, a flat copy; the same as `gguf.quants.dequantize`, bit for bit."""
    if kind == GGMLQuantizationType.F32:
        return raw.view(np.float32).copy()
    block, block_bytes = GGML_QUANT_SIZES[kind]
    step = _RUN // block * block_bytes
    values = np.empty(len(raw) // block_bytes * block, np.float32)
    with np.errstate(all="ignore"):  # a scale that is no number makes values that are none: whoever fills a model looks
        for start in range(0, len(raw), step):
            part = dequantize_rows(raw[None, start : start + step], kind)[0]
            place = start // block_bytes * block
            values[place : place + len(part)] = part
    return values


def quantize(values: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Flat values, whole blocks of them -> bytes; the same as `gguf.quants.quantize`, bit for bit."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    raw = np.empty(len(values) // block * block_bytes, np.uint8)
    with np.errstate(all="ignore"):  # the inverse of a scale near zero
        for start in range(0, len(values), _RUN):
            part = quantize_rows(values[None, start : start + _RUN], kind)[0].view(np.uint8)
            place = start // block * block_bytes
            raw[place : place + len(part)] = part
    return raw


def largest_value(kind: GGMLQuantizationType) -> float:
    """Greatest magnitude that the kind can hold: all but F32 and BF16 keep float16 numbers."""
    wide = (GGMLQuantizationType.F32, GGMLQuantizationType.BF16)
    return float(np.finfo(np.float32 if kind in wide else np.float16).max)
