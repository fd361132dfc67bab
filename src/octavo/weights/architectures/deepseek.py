"""DeepSeek-V2 (Lite too), and DeepSeek-V3 and R1: latent attention, shared experts, node-limited routing.

V3 scores experts by sigmoid, with a bias for balance, and has MTP layers; V2 by softmax, and never normalizes gates.
"""

from typing import Any

from octavo.errors import CheckpointError
from octavo.model.config import ModelConfig
from octavo.weights.architectures.family import Family
from octavo.weights.architectures.values import Values

_KEYS = {
    "intermediate_size": "ffn_width",
    "q_lora_rank": "attention.q_rank",
    "kv_lora_rank": "attention.kv_rank",
    "qk_nope_head_dim": "attention.nope_dim",
    "qk_rope_head_dim": "attention.rope_dim",
    "v_head_dim": "attention.v_dim",
    "n_routed_experts": "moe.experts",
    "num_experts_per_tok": "moe.experts_per_token",
    "moe_intermediate_size": "moe.expert_width",
    "n_shared_experts": "moe.shared_experts",
    "first_k_dense_replace": "moe.leading_dense_layers",
    "routed_scaling_factor": "moe.routed_scale",
}
_GREEDY, _BY_GROUP = "greedy", "group_limited_greedy"


def _read(values: Values) -> dict[str, Any]:
    heads = values.need("num_attention_heads")
    if values.get("num_key_value_heads", heads) != heads:
        raise values.error(f"num_key_value_heads should be num_attention_heads ({heads}) with latent attention")
    return {}


def _write(config: ModelConfig) -> dict[str, Any]:
    return {"num_key_value_heads": config.attention.heads}


def _read_v2(values: Values) -> dict[str, Any]:
    method = values.get("topk_method", _GREEDY)
    if method not in (_GREEDY, _BY_GROUP):
        raise values.error(f"topk_method is {method!r}, and only {_GREEDY!r} and {_BY_GROUP!r} are supported")
    if method == _GREEDY:
        return _read(values)
    groups = {"moe.groups": values.need("n_group"), "moe.groups_per_token": values.need("topk_group")}
    return _read(values) | groups


def _write_v2(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    if config.width % config.attention.heads:
        raise CheckpointError(
            f"transformers wants attention.heads ({config.attention.heads}) to divide width ({config.width}) in a "
            "DeepSeek-V2, though nothing depends on it: change one of them"
        )
    return _write(config) | {
        "topk_method": _GREEDY if config.moe.groups == 1 else _BY_GROUP,
        "n_group": config.moe.groups,
        "topk_group": config.moe.groups_per_token,
    }


def _write_v3(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    if config.moe.groups == config.moe.experts:
        raise CheckpointError("groups of one expert cannot be read by transformers: lower moe.groups")
    return _write(config)


DEEPSEEK_V2 = Family(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    implied={
        "attention.kind": "mla",
        "moe.scoring": "softmax",
        # transformers ignores the file's norm_topk_prob, which is false in all that were released.
        "moe.normalize_gates": False,
        "mtp_layers": 0,
    },
    keys=_KEYS,
    fixed={
        "attention_bias": False,
        "mlp_bias": False,
        "moe_layer_freq": 1,
        "scoring_func": "softmax",
        "norm_topk_prob": False,
    },
    read_more=_read_v2,
    write_more=_write_v2,
)
DEEPSEEK_V3 = Family(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    implied={"attention.kind": "mla", "moe.scoring": "sigmoid"},
    keys=_KEYS
    | {
        "norm_topk_prob": "moe.normalize_gates",
        "n_group": "moe.groups",
        "topk_group": "moe.groups_per_token",
        "num_nextn_predict_layers": "mtp_layers",
    },
    defaults={"n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0},
    fixed={
        "attention_bias": False,
        "rope_interleave": True,
        "moe_layer_freq": 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    },
    read_more=_read,
    write_more=_write_v3,
)
