"""Blocks of bytes against the gguf package, bit for bit."""

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf import quants as package

from octavo.weights.gguf.kinds import FILE_TYPES, READABLE, dequantize, largest_value, quantize


@pytest.mark.parametrize("kind", sorted(READABLE), ids=lambda kind: kind.name)
@pytest.mark.parametrize("rows", [1, 3, 2000])
def test_dequantized_as_the_package_does(kind, rows):
    """Random bytes have every scale, NaN and infinity among them."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    columns = 256 // block * block_bytes
    raw = np.random.default_rng(rows).integers(0, 256, (rows, columns), np.uint8)
    with np.errstate(all="ignore"):
        expected = package.dequantize(raw, kind).reshape(-1)
    found = dequantize(raw.reshape(-1), kind)
    assert found.dtype == np.float32
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


def test_a_place_that_is_not_aligned():
    """Alignment is the file's choice, and may be 1."""
    values = np.arange(6, dtype=np.float32)
    raw = np.frombuffer(b"?" + values.tobytes(), np.uint8)[1:]
    assert dequantize(raw, GGMLQuantizationType.F32).tolist() == values.tolist()


@pytest.mark.parametrize("name", FILE_TYPES)
@pytest.mark.parametrize("rows", [1, 2000])
def test_quantized_as_the_package_does(name, rows):
    kind = GGMLQuantizationType[name]
    values = np.random.default_rng(rows).normal(0, 0.1, (rows, 256)).astype(np.float32)
    values[0, :32] = 0  # a block without a scale
    values[0, 32:64] = 1e-41
    with np.errstate(all="ignore"):
        expected = package.quantize(values, kind)
    raw = quantize(values.reshape(-1), kind)
    assert raw.tobytes() == expected.tobytes()
    # About half a step: of the number at 16 bits, of the scale at fewer (the largest value, 0.5, over 127 at 8).
    worst = {"F32": 0, "F16": 3e-4, "BF16": 2e-3, "Q8_0": 3e-3, "Q5_1": 0.02, "Q5_0": 0.04, "Q4_1": 0.04, "Q4_0": 0.08}
    assert np.abs(dequantize(raw, kind) - values.reshape(-1)).max() <= worst[name]


def test_largest_values():
    assert largest_value(GGMLQuantizationType.F16) == largest_value(GGMLQuantizationType.Q4_0) == 65504
    assert largest_value(GGMLQuantizationType.BF16) > 1e38
