"""Small models of each layout and a real tokenizer, trained on a few lines."""

import pytest
import torch

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer

_MLA = {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
_MOE = {"experts": 6, "experts_per_token": 2, "expert_width": 8, "routed_scale": 1.7}
_GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
_SHAPES = {
    "deepseek_v3": {"attention": _MLA, "moe": _MOE},
    "deepseek_v3, query rank, groups, yarn, tied": {
        "attention": _MLA | {"q_rank": 10},
        "moe": _MOE | {"groups": 2, "groups_per_token": 1, "shared_experts": 2, "leading_dense_layers": 0},
        "tie_embeddings": True,
        "max_positions": 256,
        "rope_scaling": {"kind": "yarn", "factor": 4.0, "original_max_positions": 64},
    },
    "deepseek_v3, two mtp layers": {"attention": _MLA, "moe": _MOE, "mtp_layers": 2},
    "deepseek_v3, no shared expert": {"attention": _MLA, "moe": _MOE | {"shared_experts": 0}},
    "qwen2": {"attention": _GQA | {"qkv_bias": True}, "tie_embeddings": True},
    "qwen3": {"attention": _GQA | {"qk_norm": "head", "head_dim": 6}, "norm_eps": 1e-5},
    "llama": {"attention": _GQA},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["Two and two make four.", "How much is 2 + 2? It is 4."] * 3, vocab_size=280)


def _model(name: str = "deepseek_v3") -> Transformer:
    torch.manual_seed(0)
    common = {"vocab_size": 280, "width": 16, "layers": 2, "ffn_width": 24, "init_std": 0.3}
    model = Transformer(ModelConfig.parse(common | _SHAPES[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for router in model.routers():
            router.bias_E.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def model_of():
    """(name of a shape) -> Transformer."""
    return _model


@pytest.fixture(params=_SHAPES)
def any_model(request) -> Transformer:
    return _model(request.param)
