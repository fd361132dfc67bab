"""ModelConfig <-> config.json of the Hugging Face layout: DeepSeek-V3 for sparse models, Qwen2, Qwen3 or Llama else."""

from collections.abc import Mapping
from typing import Any

from octavo.errors import CheckpointError, ConfigError
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig

_ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
# Keys of config.json that have one meaning here; a file that says otherwise describes another model.
_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "rope_interleave": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}


def to_hugging_face(config: ModelConfig) -> dict[str, Any]:
    """The config.json that describes this model to other tools. Raises CheckpointError where no layout can."""
    attention = config.attention
    kind = _model_type(config)
    values: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "torch_dtype": "float32",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": attention.heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        "attention_bias": False,
        "use_cache": True,
    }
    if isinstance(attention, GQAConfig):
        if config.mtp_layers:
            raise CheckpointError("multi-token prediction without experts has no Hugging Face layout: set mtp_layers 0")
        values["num_key_value_heads"] = attention.kv_heads
        # Qwen3's default is 128, that of the others width / heads.
        if attention.head_dim is not None or kind == "qwen3":
            values["head_dim"] = config.head_dim
        return values
    moe = config.moe
    if moe is None:
        raise CheckpointError(
            "latent attention without experts has no Hugging Face layout: add moe to the model config"
        )
    if moe.groups == moe.experts:
        raise CheckpointError("groups of one expert cannot be read by transformers: lower moe.groups")
    return values | {
        "num_key_value_heads": attention.heads,
        "q_lora_rank": attention.q_rank,
        "kv_lora_rank": attention.kv_rank,
        "qk_nope_head_dim": attention.nope_dim,
        "qk_rope_head_dim": attention.rope_dim,
        "v_head_dim": attention.v_dim,
        "rope_interleave": True,
        "n_routed_experts": moe.experts,
        "num_experts_per_tok": moe.experts_per_token,
        "moe_intermediate_size": moe.expert_width,
        "n_shared_experts": moe.shared_experts,
        "first_k_dense_replace": moe.leading_dense_layers,
        "moe_layer_freq": 1,
        "n_group": moe.groups,
        "topk_group": moe.groups_per_token,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": moe.normalize_gates,
        "routed_scaling_factor": moe.routed_scale,
        "num_nextn_predict_layers": config.mtp_layers,
    }


def from_hugging_face(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Read a config.json. Raises CheckpointError naming `where` for what Octavo cannot build."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise CheckpointError(f"{where}: model_type {kind!r} is not supported (known: {', '.join(_ARCHITECTURES)})")
    for key, only in _FIXED.items():
        if values.get(key, only) != only:
            raise CheckpointError(f"{where}: {key} is {values[key]!r}, and only {only!r} is supported")
    try:
        rope = _rope(values, where)
        common = {
            "vocab_size": values["vocab_size"],
            "width": values["hidden_size"],
            "layers": values["num_hidden_layers"],
            "ffn_width": values["intermediate_size"],
            "max_positions": values["max_position_embeddings"],
            "rope_theta": rope["rope_theta"],
            "yarn": _yarn(rope, values, where),
            "norm_eps": values["rms_norm_eps"],
            "tie_embeddings": values.get("tie_word_embeddings", False),
            "init_std": values.get("initializer_range", 0.02),
        }
        parts = _sparse_parts(values) if kind == "deepseek_v3" else {"attention": _gqa(values, kind)}
    except KeyError as error:
        raise CheckpointError(f"{where}: {error.args[0]} is missing") from error
    try:
        return ModelConfig.parse(common | parts, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _model_type(config: ModelConfig) -> str:
    attention = config.attention
    if isinstance(attention, MLAConfig):
        return "deepseek_v3"
    if config.moe:
        raise CheckpointError("experts with grouped-query attention have no layout here yet: use attention.kind mla")
    if attention.qk_norm and attention.qkv_bias:
        raise CheckpointError("attention.qkv_bias together with attention.qk_norm has no Hugging Face layout: drop one")
    if attention.qk_norm:
        return "qwen3"
    return "qwen2" if attention.qkv_bias else "llama"


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.yarn is None:
        return None
    yarn = config.yarn
    if yarn.mscale != 1.0 and not yarn.mscale_all_dim:
        raise CheckpointError(
            "yarn.mscale without yarn.mscale_all_dim means another model elsewhere: set both, or 1 and 0"
        )
    return {
        "rope_type": "yarn",
        "type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_positions,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "mscale": yarn.mscale,
        "mscale_all_dim": yarn.mscale_all_dim,
    }


def _rope(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The rotary parameters in one mapping: newer files hold them in one, older ones in two places."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CheckpointError(f"{where}: the rotary parameters should be a group of keys, got {rope!r}")
    return {"rope_theta": values.get("rope_theta", 10000.0), **rope}


def _yarn(rope: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise CheckpointError(f"{where}: rope scaling {kind!r} is not supported (known: default, yarn)")
    mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if rope.get("attention_factor") is not None or (not mscale if all_dim else mscale not in (None, 0, 1)):
        raise CheckpointError(
            f"{where}: YaRN's temperature is supported as mscale and mscale_all_dim together, or neither"
        )
    return {
        "factor": rope["factor"],
        "original_max_positions": rope.get("original_max_position_embeddings", values["max_position_embeddings"]),
        "beta_fast": rope.get("beta_fast", 32.0),
        "beta_slow": rope.get("beta_slow", 1.0),
        # Without the two, the temperature of YaRN's paper is put into the rotation, and scores are not scaled.
        "mscale": mscale or 1.0,
        "mscale_all_dim": all_dim or 0.0,
    }


def _sparse_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attention": {
            "kind": "mla",
            "heads": values["num_attention_heads"],
            "q_rank": values.get("q_lora_rank"),
            "kv_rank": values["kv_lora_rank"],
            "nope_dim": values["qk_nope_head_dim"],
            "rope_dim": values["qk_rope_head_dim"],
            "v_dim": values["v_head_dim"],
        },
        "moe": {
            "experts": values["n_routed_experts"],
            "experts_per_token": values["num_experts_per_tok"],
            "expert_width": values["moe_intermediate_size"],
            "shared_experts": values["n_shared_experts"],
            "leading_dense_layers": values["first_k_dense_replace"],
            "groups": values.get("n_group") or 1,
            "groups_per_token": values.get("topk_group") or 1,
            "routed_scale": values["routed_scaling_factor"],
            "normalize_gates": values["norm_topk_prob"],
        },
        "mtp_layers": values.get("num_nextn_predict_layers", 0),
    }


def _gqa(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    return {
        "kind": "gqa",
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim", 128 if kind == "qwen3" else None),
        "qkv_bias": kind == "qwen2",
        "qk_norm": kind == "qwen3",
    }
