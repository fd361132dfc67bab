"""FP8 weights in blocks, as DeepSeek-V3 is released: e4m3 values, and a scale for each block of 128 x 128.

DeepSeek-V3 (2024), section 3.3.2. `weight_scale_inv` is what values are multiplied with, despite its name.

Shapes: `O` rows (out), `I` columns (in), `P` and `Q` blocks along them; the last blocks may be cut off.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from octavo.errors import CheckpointError
from octavo.weights.source import shown

DEFAULT_BLOCK = (128, 128)
SCALE_SUFFIX = "_scale_inv"


def block_of(values: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Rows and columns that share a scale, by config.json's `quantization_config`.

    Raises CheckpointError for any other quantization (GPTQ, AWQ, ...), naming it.
    """
    quantization = values.get("quantization_config")
    if quantization is None:
        return DEFAULT_BLOCK
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
    if method != "fp8":
        raise CheckpointError(
            f"{where}: weights quantized with {shown(repr(method))} are not supported; expected FP8 in blocks, or the "
            "same model not quantized"
        )
    match quantization.get("weight_block_size", DEFAULT_BLOCK):
        case (int(rows), int(columns)) if rows > 0 and columns > 0:
            return rows, columns
        case other:
            raise CheckpointError(
                f"{where}: weight_block_size of quantization_config should be two sizes such as [128, 128], "
                f"got {shown(other)}"
            )


def scale_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    """[O, I] -> [P, Q]."""
    return tuple(-(-size // step) for size, step in zip(shape, block, strict=True))


def dequantize(weight_OI: Tensor, scale_PQ: Tensor, block: tuple[int, int]) -> Tensor:
    """float32 [O, I]. Beside the result only one row of blocks is in memory."""
    result_OI = weight_OI.to(torch.float32)
    columns = result_OI.shape[1]
    for rows_bI, scale_Q in zip(result_OI.split(block[0]), scale_PQ.to(torch.float32), strict=True):
        rows_bI.mul_(scale_Q.repeat_interleave(block[1])[:columns])
    return result_OI
