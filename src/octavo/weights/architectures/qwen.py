"""Qwen2 and Qwen2.5 (the R1 distillations too), Qwen3, and Qwen3-MoE."""

from typing import Any

from octavo.model.config import ModelConfig
from octavo.weights.architectures.family import Family
from octavo.weights.architectures.grouped import (
    grouped,
    heads,
    heads_keys,
    switched_window,
    switched_window_keys,
)
from octavo.weights.architectures.values import Values

_GQA = {"attention.kind": "gqa", "mtp_layers": 0}
_NORMED = _GQA | {"attention.qkv_bias": False, "attention.qk_norm": "head"}


def _read_dense(values: Values) -> dict[str, Any]:
    values.need("num_key_value_heads")
    return heads(values) | switched_window(values)


def _write_dense(config: ModelConfig) -> dict[str, Any]:
    return heads_keys(config) | switched_window_keys(config)


def _read_qwen3(values: Values) -> dict[str, Any]:
    return _read_dense(values) | {"attention.head_dim": values.get("head_dim", 128)}


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return _write_dense(config) | {"head_dim": config.head_dim}


def _read_moe(values: Values) -> dict[str, Any]:
    values.need("num_key_value_heads")
    # Here the switch is for all layers alike.
    window = values.get("sliding_window", 4096) if values.get("use_sliding_window", False) else None
    return heads(values) | {
        "attention.sliding_window": window,
        "moe.experts": values.get("num_local_experts") or values.need("num_experts"),
        "moe.leading_dense_layers": _leading_dense_layers(values),
    }


def _leading_dense_layers(values: Values) -> int:
    """Layers are sparse by a step and a list of exceptions; only dense layers in front of all sparse ones can be built.

    Raises CheckpointError for other patterns.
    """
    layers, step = values.integer("num_hidden_layers"), values.integer("decoder_sparse_step", 1)
    exceptions = values.get("mlp_only_layers", [])
    if step < 1 or not isinstance(exceptions, list):
        raise values.error(
            f"decoder_sparse_step is {step!r} and mlp_only_layers {exceptions!r}: expected 1 or more, and a list"
        )
    sparse = [layer not in exceptions and (layer + 1) % step == 0 for layer in range(layers)]
    leading = sparse.index(True) if True in sparse else layers
    if not all(sparse[leading:]):
        raise values.error(
            "decoder_sparse_step and mlp_only_layers put dense layers behind sparse ones, and only dense layers in "
            "front are supported"
        )
    return leading


def _write_moe(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None
    window = grouped(config).sliding_window
    return heads_keys(config) | {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "num_experts": config.moe.experts,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(config.moe.leading_dense_layers)),
    }


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    implied=_GQA | {"attention.qkv_bias": True, "attention.qk_norm": None, "moe": None},
    keys={"intermediate_size": "ffn_width"},
    read_more=_read_dense,
    write_more=_write_dense,
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    implied=_NORMED | {"moe": None},
    keys={"intermediate_size": "ffn_width"},
    fixed={"attention_bias": False},
    read_more=_read_qwen3,
    write_more=_write_qwen3,
)
QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    implied=_NORMED
    | {
        "moe.scoring": "softmax",
        "moe.shared_experts": 0,
        "moe.groups": 1,
        "moe.routed_scale": 1.0,
    },
    keys={
        "intermediate_size": "ffn_width",
        "num_experts_per_tok": "moe.experts_per_token",
        "moe_intermediate_size": "moe.expert_width",
        "norm_topk_prob": "moe.normalize_gates",
    },
    defaults={"norm_topk_prob": False},
    fixed={"attention_bias": False},
    read_more=_read_moe,
    write_more=_write_moe,
)
