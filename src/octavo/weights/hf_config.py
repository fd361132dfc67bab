"""ModelConfig <-> config.json of the Hugging Face layout."""

from collections.abc import Mapping
from typing import Any

from octavo.errors import CheckpointError
from octavo.model.config import MLAConfig, ModelConfig
from octavo.weights.architectures.deepseek import DEEPSEEK_V2, DEEPSEEK_V3
from octavo.weights.architectures.family import Family
from octavo.weights.architectures.llama import LLAMA, MISTRAL
from octavo.weights.architectures.olmoe import OLMOE
from octavo.weights.architectures.qwen import QWEN2, QWEN3, QWEN3_MOE
from octavo.weights.architectures.values import Values

_FAMILIES = {
    family.model_type: family for family in (DEEPSEEK_V2, DEEPSEEK_V3, LLAMA, MISTRAL, QWEN2, QWEN3, QWEN3_MOE, OLMOE)
}


def from_hugging_face(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Read a config.json. Raises CheckpointError naming `where` for what Octavo cannot build."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise CheckpointError(f"{where}: model_type {kind!r} is not supported (known: {', '.join(_FAMILIES)})")
    return _FAMILIES[kind].read(Values(values, where))


def to_hugging_face(config: ModelConfig) -> dict[str, Any]:
    """The config.json that describes this model to other tools. Raises CheckpointError where no layout can."""
    return _family(config).write(config)


def _family(config: ModelConfig) -> Family:
    """The family nearest to the model; whether it can describe it is for the family to say."""
    attention, moe = config.attention, config.moe
    if isinstance(attention, MLAConfig):
        if moe is None:
            raise CheckpointError(
                "latent attention without experts has no Hugging Face layout: add moe to the model config"
            )
        return DEEPSEEK_V3 if moe.scoring == "sigmoid" else DEEPSEEK_V2
    if moe is not None:
        return OLMOE if attention.qk_norm == "projection" else QWEN3_MOE
    if attention.qk_norm:
        return QWEN3
    if attention.qkv_bias:
        return QWEN2
    # transformers wants the heads of a Llama, though not of a Mistral, to divide its width.
    plain = attention.sliding_window is None and config.width % attention.heads == 0
    return LLAMA if plain else MISTRAL
