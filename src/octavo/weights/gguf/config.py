"""The metadata that describes a model's shape <-> its config.json in the Hugging Face layout.

The tables between keys serve both directions, so that reading and writing cannot disagree. Where llama.cpp computes
something for every model of an architecture, whatever the file says, a model that differs is refused in `metadata_of`.
"""

from collections.abc import Mapping
from typing import Any

from octavo.errors import CheckpointError
from octavo.weights.gguf.fields import Fields
from octavo.weights.gguf.reader import GGUFFile
from octavo.weights.gguf.rope import read_rope

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "olmoe": "olmoe",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
}
"""model_type of config.json -> llama.cpp's architecture."""

# Whole numbers: key of the metadata, behind the architecture's name -> key of config.json.
_COMMON = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_EXPERTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_MORE = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3moe": _EXPERTS | {"expert_feed_forward_length": "moe_intermediate_size"},
    "olmoe": _EXPERTS,
    "deepseek2": {
        "attention.kv_lora_rank": "kv_lora_rank",
        "rope.dimension_count": "qk_rope_head_dim",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_count": "n_routed_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_shared_count": "n_shared_experts",
    },
}
_EPSILON = "attention.layer_norm_rms_epsilon"
# What llama.cpp calls the two ways of scoring experts (expert_gating_func).
_SOFTMAX, _SIGMOID = 1, 2
# Whether gates are normalized, where the architecture decides it.
_NORMALIZED_GATES = {"qwen3moe": True, "olmoe": False}


def config_of(file: GGUFFile) -> dict[str, Any]:
    """The config.json that describes the model in a GGUF file. Raises CheckpointError naming file and key."""
    fields = Fields(file)
    architecture = fields.architecture
    if architecture not in _MORE:
        raise fields.error("general.architecture", f"{architecture!r} is not supported (known: {', '.join(_MORE)})")
    if fields.text("general.type", "model") != "model":
        raise fields.error("general.type", f"is {fields.text('general.type', '')!r}, expected a model")
    if fields.integer("split.count", 1) > 1:
        raise fields.error(
            "split.count", "says that this is one of several parts; join them: llama-gguf-split --merge FIRST OUT"
        )
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError(f"{file.path}: tensor token_embd.weight is missing")
    values: dict[str, Any] = {
        "model_type": architecture,
        "vocab_size": fields.integer("vocab_size", file.tensors["token_embd.weight"].shape[0]),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rms_norm_eps": fields.real(_EPSILON),
        **{ours: fields.integer(key) for key, ours in (_COMMON | _MORE[architecture]).items()},
    }
    values |= _latent(fields, values, file) if architecture == "deepseek2" else _grouped(fields, values)
    if architecture in _NORMALIZED_GATES:
        values["norm_topk_prob"] = _NORMALIZED_GATES[architecture]
    return values | read_rope(fields, values, file)


def metadata_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that makes llama.cpp compute what a config.json describes, but for the rotation.

    Raises CheckpointError for models that llama.cpp would compute otherwise, or would not load.
    """
    architecture = ARCHITECTURES[values["model_type"]]
    metadata = {
        "vocab_size": values["vocab_size"],
        _EPSILON: float(values["rms_norm_eps"]),
        **{key: values[ours] for key, ours in (_COMMON | _MORE[architecture]).items()},
    }
    if architecture == "deepseek2":
        return metadata | _latent_metadata(values)
    head = _head_dim(values)
    window = values.get("sliding_window")
    if window is not None and values.get("use_sliding_window", True):
        # llama.cpp has no window for these: within the window, there is no difference.
        metadata["context_length"] = min(window, values["max_position_embeddings"])
    heads, kv_heads, width = values["num_attention_heads"], values["num_key_value_heads"], values["hidden_size"]
    if architecture in ("qwen2", "olmoe") and heads * head != width:
        raise _unloadable(architecture, f"heads of width / heads ({width} / {heads})", f"heads of {head}")
    if architecture == "olmoe" and heads != kv_heads:
        raise _unloadable(architecture, "as many key heads as query heads", f"{kv_heads} and {heads}")
    if values.get("mlp_only_layers"):
        raise _unloadable(architecture, "experts in every layer", f"{len(values['mlp_only_layers'])} dense layers")
    normalized = values.get("norm_topk_prob")
    if architecture in _NORMALIZED_GATES and normalized != _NORMALIZED_GATES[architecture]:
        raise _unloadable(architecture, f"norm_topk_prob {_NORMALIZED_GATES[architecture]}", str(normalized))
    return metadata | {
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": head,
    }


def is_lite(layers: int, vocab_size: int) -> bool:
    """Whether llama.cpp takes a deepseek2 of this size for one without a query rank.

    It goes by these numbers alone (DeepSeek-V2-Lite has 27 layers), not by what lies in the file.
    """
    return layers in (26, 27) or (layers == 48 and vocab_size == 128256)


def _grouped(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    heads, width = values["num_attention_heads"], values["hidden_size"]
    head = fields.integer("attention.key_length", width // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(key, head) != head:
            raise fields.error(key, f"is {fields.integer(key)}, expected that of a whole key, {head}")
    found: dict[str, Any] = {"num_key_value_heads": fields.integer("attention.head_count_kv", heads)}
    # Qwen3's is 128 where none is given, all others' width / heads.
    if values["model_type"] == "qwen3moe":
        found["model_type"] = "qwen3_moe"
    if values["model_type"].startswith("qwen3") or head * heads != width:
        found["head_dim"] = head
    return found


def _latent(fields: Fields, values: Mapping[str, Any], file: GGUFFile) -> dict[str, Any]:
    # Newer files describe the absorbed form (one key of kv_rank + rope_dim for all heads), and the heads in *_mla.
    absorbed = "attention.key_length_mla" in fields
    key = fields.integer("attention.key_length_mla" if absorbed else "attention.key_length")
    groups = fields.integer("expert_group_count", 1) or 1
    found = {
        "num_key_value_heads": values["num_attention_heads"],
        "q_lora_rank": fields.integer("attention.q_lora_rank") if "attention.q_lora_rank" in fields else None,
        "qk_nope_head_dim": key - values["qk_rope_head_dim"],
        "v_head_dim": fields.integer("attention.value_length_mla" if absorbed else "attention.value_length"),
        "first_k_dense_replace": fields.integer("leading_dense_block_count", 0),
        "routed_scaling_factor": fields.real("expert_weights_scale", 1.0) or 1.0,
        "norm_topk_prob": fields.flag("expert_weights_norm", False),
        "n_group": groups,
        "topk_group": fields.integer("expert_group_used_count", 1) or 1,
    }
    gating = fields.integer("expert_gating_func", _SOFTMAX)
    if gating not in (_SOFTMAX, _SIGMOID):
        raise fields.error("expert_gating_func", f"is {gating}, and only 1 (softmax) and 2 (sigmoid) are supported")
    if gating == _SOFTMAX:
        return found | {
            "model_type": "deepseek_v2",
            "topk_method": "greedy" if groups == 1 else "group_limited_greedy",
        }
    # Layers of multi-token prediction count as layers here, and may have been left out all the same.
    appended = fields.integer("nextn_predict_layers", 0)
    layers = values["num_hidden_layers"] - appended
    present = f"blk.{layers}.nextn.eh_proj.weight" in file.tensors
    return found | {
        "model_type": "deepseek_v3",
        "num_hidden_layers": layers,
        "num_nextn_predict_layers": appended if present else 0,
    }


def _latent_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    rank, rope = values["kv_lora_rank"], values["qk_rope_head_dim"]
    lite = is_lite(values["num_hidden_layers"], values["vocab_size"])
    if values["q_lora_rank"] is not None and lite:
        raise CheckpointError(
            f"llama.cpp takes a deepseek2 of {values['num_hidden_layers']} layers for a DeepSeek-V2-Lite, which has no "
            f"query rank, and this model has one of {values['q_lora_rank']}: export it as a Hugging Face folder"
        )
    groups, kept = values["n_group"], values["topk_group"]
    metadata = {
        # With W_kvb absorbed, all heads share one key and one value.
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": values["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": values["v_head_dim"],
        "leading_dense_block_count": values["first_k_dense_replace"],
        "expert_weights_scale": float(values["routed_scaling_factor"]),
        "expert_weights_norm": values["norm_topk_prob"],
        "expert_gating_func": _SIGMOID if values["model_type"] == "deepseek_v3" else _SOFTMAX,
        # Without a shared expert, it is written as one of zeros (tensors.py): llama.cpp wants at least one.
        "expert_shared_count": max(values["n_shared_experts"], 1),
    }
    if values["q_lora_rank"] is not None:
        metadata["attention.q_lora_rank"] = values["q_lora_rank"]
    # All groups kept is no choice of groups, and llama.cpp stops at it. (A DeepSeek-V2 with groups is read otherwise by
    # llama.cpp: it ranks groups by their two best experts, as in V3. Its own converter writes such files too.)
    if kept < groups:
        metadata |= {"expert_group_count": groups, "expert_group_used_count": kept}
    return metadata


def _head_dim(values: Mapping[str, Any]) -> int:
    return values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]


def _unloadable(architecture: str, wanted: str, got: str) -> CheckpointError:
    return CheckpointError(
        f"llama.cpp knows {architecture} with {wanted} only, and this model has {got}: export it as a Hugging Face "
        "folder"
    )
