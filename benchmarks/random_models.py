"""Small random models of every architecture that is exported, with weights large enough that no two tokens tie."""

import torch

from octavo.evals.perplexity import english_prose
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer

_MLA = {"kind": "mla", "heads": 4, "kv_rank": 48, "nope_dim": 16, "rope_dim": 16, "v_dim": 32}
_MOE = {"experts": 16, "experts_per_token": 4, "expert_width": 32, "routed_scale": 1.5}
_SOFTMAX = {"experts": 8, "experts_per_token": 2, "expert_width": 32, "scoring": "softmax", "shared_experts": 0}
_GQA = {"kind": "gqa", "heads": 4, "kv_heads": 2}
_YARN = {"kind": "yarn", "factor": 4.0, "original_max_positions": 128}
_LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

RANDOM_MODELS: dict[str, dict] = {
    "deepseek_v3": {"attention": _MLA, "moe": _MOE, "tie_embeddings": True},
    "deepseek_v3, query rank, groups, yarn": {
        "attention": _MLA | {"q_rank": 64},
        "moe": _MOE | {"groups": 4, "groups_per_token": 2, "shared_experts": 2, "leading_dense_layers": 0},
        "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "deepseek_v3, no shared expert": {"attention": _MLA, "moe": _MOE | {"shared_experts": 0}},
    "deepseek_v2, 27 layers": {
        "attention": _MLA,
        "moe": _SOFTMAX | {"shared_experts": 1, "normalize_gates": False},
        "layers": 27,
    },
    "llama": {"attention": _GQA},
    "llama 3": {
        "attention": _GQA,
        "rope_theta": 500000.0,
        "rope_scaling": _LLAMA3 | {"original_max_positions": 8192},
    },
    "llama, linear": {"attention": _GQA, "rope_scaling": {"kind": "linear", "factor": 2.5}},
    "qwen2": {"attention": _GQA | {"qkv_bias": True}, "tie_embeddings": True},
    "qwen2, yarn": {"attention": _GQA | {"qkv_bias": True}, "rope_scaling": _YARN},
    "qwen3": {"attention": _GQA | {"qk_norm": "head", "head_dim": 32}},
    "qwen3_moe": {
        "attention": _GQA | {"qk_norm": "head", "head_dim": 32},
        "moe": _SOFTMAX | {"leading_dense_layers": 0},
    },
    "olmoe": {
        "attention": _GQA | {"qk_norm": "projection", "kv_heads": 4},
        "moe": _SOFTMAX | {"leading_dense_layers": 0, "normalize_gates": False},
        "ffn_width": 32,
    },
}
_COMMON = {"vocab_size": 512, "width": 96, "layers": 3, "ffn_width": 192, "max_positions": 512}


def random_tokenizer() -> Tokenizer:
    """An own vocabulary of 512 tokens."""
    return Tokenizer.train(english_prose(), vocab_size=_COMMON["vocab_size"])


def random_model(name: str) -> Transformer:
    """The model of that name, the same in every run."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig.parse(_COMMON | RANDOM_MODELS[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(6)
        for router in model.routers():
            if router.bias_E is not None:
                router.bias_E.normal_(0, 0.1)
    return model.eval()
