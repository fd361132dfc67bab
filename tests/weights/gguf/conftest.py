"""Files written by the `gguf` package, and small models of every architecture that llama.cpp shares with us."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer

_MLA = {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
_MOE = {"experts": 6, "experts_per_token": 2, "expert_width": 8, "routed_scale": 1.7}
_SOFTMAX = {"experts": 6, "experts_per_token": 2, "expert_width": 8, "scoring": "softmax", "shared_experts": 0}
_GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
_YARN = {"kind": "yarn", "factor": 4.0, "original_max_positions": 64}
_LLAMA3 = {"kind": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_positions": 8192}

SHAPES = {
    "llama": {"attention": _GQA},
    "llama, tied, heads of another size": {"attention": _GQA | {"head_dim": 6}, "tie_embeddings": True},
    "llama, linear scaling": {"attention": _GQA, "rope_scaling": {"kind": "linear", "factor": 2.5}},
    "llama 3": {
        "attention": _GQA | {"head_dim": 16},
        "rope_theta": 500000.0,
        "rope_scaling": _LLAMA3 | {"factor": 8.0},
    },
    "qwen2": {"attention": _GQA | {"qkv_bias": True}, "tie_embeddings": True, "norm_eps": 1e-5},
    "qwen2, yarn": {"attention": _GQA | {"qkv_bias": True}, "rope_scaling": _YARN},
    "qwen3": {"attention": _GQA | {"qk_norm": "head", "head_dim": 6}},
    "qwen3_moe": {
        "attention": _GQA | {"qk_norm": "head", "head_dim": 6},
        "moe": _SOFTMAX | {"leading_dense_layers": 0},
    },
    "olmoe": {
        "attention": _GQA | {"qk_norm": "projection", "kv_heads": 4},
        "moe": _SOFTMAX | {"leading_dense_layers": 0, "normalize_gates": False},
        "ffn_width": 8,
    },
    "deepseek_v2, query rank, yarn": {
        "attention": _MLA | {"q_rank": 10},
        "moe": _SOFTMAX | {"shared_experts": 2, "normalize_gates": False, "groups": 3, "groups_per_token": 2},
        "rope_scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek_v2, 27 layers": {
        "attention": _MLA,
        "moe": _SOFTMAX | {"experts": 2, "shared_experts": 1, "normalize_gates": False},
        "layers": 27,
    },
    "deepseek_v3": {"attention": _MLA | {"q_rank": 10}, "moe": _MOE},
    "deepseek_v3, groups, yarn, tied": {
        "attention": _MLA | {"q_rank": 10},
        "moe": _MOE | {"groups": 3, "groups_per_token": 2, "shared_experts": 2, "leading_dense_layers": 0},
        "tie_embeddings": True,
        "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
}
"""Shapes that are read as they were written, down to the config."""


def _model(shape: dict) -> Transformer:
    torch.manual_seed(0)
    common = {"vocab_size": 280, "width": 16, "layers": 2, "ffn_width": 24, "max_positions": 256}
    # The spread of weights that nobody stores is what is assumed where nothing is said.
    model = Transformer(ModelConfig.parse(common | shape))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(15)
        for router in model.routers():
            if router.bias_E is not None:
                router.bias_E.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def model_of_shape():
    """(fields beside those common to all) -> Transformer."""
    return _model


@pytest.fixture(params=SHAPES)
def exact_model(request) -> Transformer:
    return _model(SHAPES[request.param])


@pytest.fixture
def written(tmp_path):
    """(metadata, {name: (values, kind)}, architecture, file name) -> path of a file written by the gguf package."""

    def write(metadata=None, tensors=None, architecture="llama", name="model.gguf", alignment=None) -> Path:
        path = tmp_path / name
        writer = GGUFWriter(path, architecture)
        if alignment:
            writer.add_custom_alignment(alignment)
        for key, value in (metadata or {}).items():
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add.get(type(value), writer.add_array)(key, value)
        for key, (values, kind) in (tensors or {}).items():
            kind = GGMLQuantizationType[kind]
            writer.add_tensor(key, quantize(np.asarray(values, np.float32), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
