"""OLMoE (Muennighoff et al. 2024): experts in every layer, norms of queries and keys over all heads."""

from typing import Any

from octavo.errors import CheckpointError
from octavo.model.config import ModelConfig
from octavo.weights.architectures.family import Family
from octavo.weights.architectures.grouped import heads, heads_keys
from octavo.weights.architectures.values import Values


def _read(values: Values) -> dict[str, Any]:
    # There is no dense layer whose width could be told; the one number is that of the experts.
    return heads(values) | {"ffn_width": values.need("intermediate_size")}


def _write(config: ModelConfig) -> dict[str, Any]:
    if config.head_dim * config.attention.heads != config.width:
        raise CheckpointError(
            f"an OLMoE has heads of width / heads ({config.width} / {config.attention.heads}), this model of "
            f"{config.head_dim}: drop attention.head_dim"
        )
    return heads_keys(config)


OLMOE = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    implied={
        "attention.kind": "gqa",
        "attention.qkv_bias": False,
        "attention.qk_norm": "projection",
        "attention.sliding_window": None,
        "moe.scoring": "softmax",
        "moe.shared_experts": 0,
        "moe.leading_dense_layers": 0,
        "moe.groups": 1,
        "moe.routed_scale": 1.0,
        "mtp_layers": 0,
    },
    keys={
        "intermediate_size": "moe.expert_width",
        "num_experts": "moe.experts",
        "num_experts_per_tok": "moe.experts_per_token",
        "norm_topk_prob": "moe.normalize_gates",
    },
    defaults={"norm_topk_prob": False},
    fixed={"attention_bias": False, "clip_qkv": None},
    read_more=_read,
    write_more=_write,
)
