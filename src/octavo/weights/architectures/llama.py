"""Llama 2 and 3 (SmolLM2 too), and Mistral: Llama with a sliding window, in its first releases.

A Mistral without a window computes what a Llama does, and is written as one.
"""

from typing import Any

from octavo.model.config import ModelConfig
from octavo.weights.architectures.family import Family
from octavo.weights.architectures.grouped import grouped, heads, heads_keys
from octavo.weights.architectures.values import Values

_DENSE = {
    "attention.kind": "gqa",
    "attention.qkv_bias": False,
    "attention.qk_norm": None,
    "moe": None,
    "mtp_layers": 0,
}


def _read_mistral(values: Values) -> dict[str, Any]:
    # Absent it is 4096, null it is off.
    window = values.need("sliding_window") if "sliding_window" in values.values else 4096
    return heads(values) | {"attention.sliding_window": window}


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return heads_keys(config) | {"sliding_window": grouped(config).sliding_window}


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    implied=_DENSE | {"attention.sliding_window": None},
    keys={"intermediate_size": "ffn_width"},
    fixed={"attention_bias": False, "mlp_bias": False},
    read_more=heads,
    write_more=heads_keys,
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    implied=_DENSE,
    keys={"intermediate_size": "ffn_width"},
    read_more=_read_mistral,
    write_more=_write_mistral,
)
