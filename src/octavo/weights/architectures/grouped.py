"""What the families with grouped-query attention share: heads, and the sliding window as Qwen's files have it."""

from typing import Any

from octavo.model.config import GQAConfig, ModelConfig
from octavo.weights.architectures.values import Values


def heads(values: Values) -> dict[str, Any]:
    """Key and value heads and their size; where a file names no number of them, there are as many as queries."""
    return {
        "attention.kv_heads": values.get("num_key_value_heads", values.need("num_attention_heads")),
        "attention.head_dim": values.get("head_dim"),
    }


def heads_keys(config: ModelConfig) -> dict[str, Any]:
    """The keys of `heads`; the head size only where it is not width / heads by itself."""
    attention = grouped(config)
    keys = {"num_key_value_heads": attention.kv_heads}
    return keys if attention.head_dim is None else keys | {"head_dim": attention.head_dim}


def switched_window(values: Values) -> dict[str, Any]:
    """Qwen's sliding window: a size, a switch, and the layers that have it, which must be all or none here."""
    size = values.get("sliding_window", 4096) if values.get("use_sliding_window", False) else None
    layers = values.integer("num_hidden_layers")
    kinds = values.get("layer_types")
    if kinds is None:
        full = layers if size is None else values.integer("max_window_layers", 28)
        windowed = {layer >= full for layer in range(layers)}
    else:
        if not isinstance(kinds, list) or not set(map(str, kinds)) <= {"full_attention", "sliding_attention"}:
            raise values.error(f"layer_types is {kinds!r}, and only full_attention and sliding_attention are supported")
        windowed = {kind == "sliding_attention" for kind in kinds}
    if windowed == {True, False}:
        raise values.error("a sliding window in some layers only is not supported")
    return {"attention.sliding_window": size if windowed == {True} else None}


def switched_window_keys(config: ModelConfig) -> dict[str, Any]:
    """The keys of `switched_window`."""
    size = grouped(config).sliding_window
    if size is None:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": size, "max_window_layers": 0}


def grouped(config: ModelConfig) -> GQAConfig:
    """The attention of a model that is known to be grouped-query."""
    assert isinstance(config.attention, GQAConfig)
    return config.attention
