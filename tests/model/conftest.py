"""Tiny models with nothing left at its default: norms off 1, router biases off 0, weights large enough to matter."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.hf_config import to_hugging_face
from octavo.weights.names import hugging_face_views

_COMMON = {"vocab_size": 50, "width": 16, "layers": 3, "ffn_width": 24, "init_std": 0.3}
_MLA = {"kind": "mla", "heads": 4, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
_MOE = {"experts": 8, "experts_per_token": 3, "expert_width": 12, "routed_scale": 1.7}
_GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _sparse(attention=None, moe=None, **values) -> ModelConfig:
    parts = {"attention": _MLA | (attention or {}), "moe": _MOE | (moe or {})}
    return ModelConfig.parse(_COMMON | parts | values)


def _dense(attention=None, **values) -> ModelConfig:
    return ModelConfig.parse(_COMMON | {"attention": _GQA | (attention or {})} | values)


def _random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for router in model.routers():
            if router.bias_E is not None:
                router.bias_E.normal_(0, 0.1)
    return model.eval()


def _gradients(model: Transformer) -> tuple[dict, dict]:
    """The gradients of a model by their Hugging Face names: of the main model, and of MTP layers."""
    twin = copy.deepcopy(model)
    for ours, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        ours.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    return hugging_face_views(twin)


@pytest.fixture
def sparse():
    """(attention={}, moe={}, **values) -> ModelConfig of the DeepSeek-V3 kind."""
    return _sparse


@pytest.fixture
def dense():
    """(attention={}, **values) -> ModelConfig of the GQA kind."""
    return _dense


@pytest.fixture
def random_model():
    """(config, seed=0) -> Transformer in evaluation mode."""
    return _random_model


@pytest.fixture
def gradients_of():
    """model -> its gradients by Hugging Face name (main, MTP)."""
    return _gradients


@pytest.fixture
def write_for_transformers(tmp_path):
    """model -> folder that `transformers` opens, MTP layers in the same file as the released models have them."""

    def write(model: Transformer, **values):
        main, mtp = hugging_face_views(model)
        tensors = {name: tensor.contiguous() for name, tensor in (main | mtp).items()}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        config = to_hugging_face(model.config) | {"eos_token_id": None} | values
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write
