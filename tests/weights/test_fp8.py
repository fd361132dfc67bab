"""FP8 in blocks: by hand, against the plain formula, and against transformers' own dequantization."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from octavo.errors import CheckpointError
from octavo.weights.fp8 import block_of, dequantize, scale_shape


def test_worked_by_hand():
    """Blocks of 2 x 3 on a matrix of 3 x 4: the last row and the last column have blocks of their own."""
    weight_OI = torch.tensor([[1, 2, -3, 4], [0.5, 0, 1, -8], [2, 2, 2, 2]]).to(torch.float8_e4m3fn)
    scale_PQ = torch.tensor([[10.0, 0.5], [-1.0, 3.0]])
    expected = torch.tensor([[10, 20, -30, 2], [5, 0, 10, -4], [-2, -2, -2, 6]], dtype=torch.float32)
    assert torch.equal(dequantize(weight_OI, scale_PQ, (2, 3)), expected)
    assert scale_shape((3, 4), (2, 3)) == (2, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.integers(1, 16), st.integers(0, 99))
def test_each_element_is_its_value_times_the_scale_of_its_block(rows, columns, block_rows, block_columns, seed):
    random = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(rows, columns, generator=random).to(torch.float8_e4m3fn)
    block = (block_rows, block_columns)
    scale_PQ = torch.rand(scale_shape((rows, columns), block), generator=random)
    row_O, column_I = torch.arange(rows) // block_rows, torch.arange(columns) // block_columns
    expected = weight_OI.float() * scale_PQ[row_O[:, None], column_I]
    assert torch.equal(dequantize(weight_OI, scale_PQ, block), expected)


def test_as_transformers_reads_it():
    torch.manual_seed(0)
    weight_OI, scale_PQ = torch.randn(256, 384).to(torch.float8_e4m3fn), torch.rand(2, 3)
    expected = Fp8Dequantize(None)._dequantize_one(weight_OI, scale_PQ, torch.float32)
    assert torch.equal(dequantize(weight_OI, scale_PQ, (128, 128)), expected)


def test_block_of_the_config():
    """As DeepSeek-V3 and Qwen3 publish it; without a word about it, DeepSeek's blocks."""
    published = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
    assert block_of({"quantization_config": published}, "config.json") == (128, 128)
    assert block_of({"quantization_config": published | {"weight_block_size": [64, 32]}}, "config.json") == (64, 32)
    assert block_of({"quantization_config": {"quant_method": "fp8"}}, "config.json") == (128, 128)
    assert block_of({}, "config.json") == block_of({"quantization_config": None}, "config.json") == (128, 128)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "weights quantized with 'gptq' are not supported; expected FP8 in"),
        ({"quant_method": "awq"}, "quantized with 'awq'"),
        ({"quant_method": "bitsandbytes"}, "quantized with 'bitsandbytes'"),
        ({"quant_method": "mxfp4"}, "quantized with 'mxfp4'"),
        ({}, "quantized with None"),
        ("int8", "quantized with 'int8'"),
        ({"quant_method": "x\n" * 999}, r"quantized with 'x\\nx"),
        ({"quant_method": "fp8", "weight_block_size": None}, r"should be two sizes such as \[128, 128\], got None"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"got \[128\]"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, r"got \[0, 128\]"),
        ({"quant_method": "fp8", "weight_block_size": ["128", 128]}, r"got \['128', 128\]"),
    ],
)
def test_other_quantizations_are_refused_by_name(quantization, message):
    with pytest.raises(CheckpointError, match=f"^model/config.json: .*{message}") as caught:
        block_of({"quantization_config": quantization}, "model/config.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
