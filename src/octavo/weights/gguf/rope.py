"""The rotation: metadata and the tensor `rope_freqs.weight` <-> rope_theta and rope_scaling of config.json.

llama.cpp divides each frequency by a factor of its own where there is such a tensor: so Llama 3's scaling is written.
Of YaRN it knows the temperature of the paper, and with latent attention that of DeepSeek.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from octavo.errors import CheckpointError
from octavo.model.config import LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from octavo.model.rope import Rope, yarn_amplitude, yarn_mscale
from octavo.weights.gguf.fields import Fields
from octavo.weights.gguf.kinds import READABLE, dequantize
from octavo.weights.gguf.reader import GGUFFile

ROPE_FACTORS = "rope_freqs.weight"
_THETA, _TYPE, _FACTOR = "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"
_ORIGINAL, _AMPLITUDE = "rope.scaling.original_context_length", "rope.scaling.attn_factor"
# DeepSeek's mscale_all_dim, times 0.1 by an accident of the first converter that stayed.
_LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
_BETAS = {"beta_fast": "rope.scaling.yarn_beta_fast", "beta_slow": "rope.scaling.yarn_beta_slow"}
_LLAMA3_ORIGINAL = 8192
_CLOSE = 1e-4


def read_rope(fields: Fields, values: Mapping[str, Any], file: GGUFFile) -> dict[str, Any]:
    """The keys rope_theta and rope_scaling. Raises CheckpointError for rotations that cannot be said in them."""
    theta = fields.real(_THETA, 10000.0)
    kind, factor = fields.text(_TYPE, "linear"), fields.real(_FACTOR, fields.real("rope.scale_linear", 1.0)) or 1.0
    scaling: dict[str, Any] | None = None
    if ROPE_FACTORS in file.tensors:
        scaling = _read_factors(fields, values, theta, file)
    elif kind == "yarn":
        scaling = _read_yarn(fields, values, factor)
    elif kind == "linear" and factor != 1.0:
        scaling = {"rope_type": "linear", "factor": factor}
    elif kind not in ("none", "linear"):
        raise fields.error(_TYPE, f"is {kind!r}, which is not supported (known: none, linear, yarn)")
    return {"rope_theta": theta, "rope_scaling": scaling}


def rope_metadata(config: ModelConfig, architecture: str) -> dict[str, Any]:
    """Keys that make llama.cpp rotate as the model does. Raises CheckpointError where none do."""
    metadata: dict[str, Any] = {_THETA: float(config.rope_theta)}
    latent = architecture == "deepseek2"
    match config.rope_scaling:
        case LinearRopeConfig(factor=factor) if not latent:
            return metadata | {_TYPE: "linear", _FACTOR: float(factor)}
        case Llama3RopeConfig(original_max_positions=original) if architecture == "llama":
            return metadata | {_ORIGINAL: original}
        case YarnConfig() as yarn:
            metadata |= {_TYPE: "yarn", _FACTOR: float(yarn.factor), _ORIGINAL: yarn.original_max_positions}
            return metadata | _yarn_temperature(yarn, latent)
        case None:
            return metadata
    raise CheckpointError(
        f"llama.cpp does not know {config.rope_scaling.kind} rope scaling in {architecture}: export the model as a "
        "Hugging Face folder"
    )


def rope_factors(config: ModelConfig) -> np.ndarray | None:
    """What each frequency is divided by, [head size / 2] float32, for Llama 3's scaling."""
    if not isinstance(config.rope_scaling, Llama3RopeConfig):
        return None
    return _factors(config.head_dim, config.rope_theta, config.rope_scaling)


def _factors(dim: int, theta: float, llama3: Llama3RopeConfig) -> np.ndarray:
    return (Rope(dim, theta).inverse_frequencies / Rope(dim, theta, llama3).inverse_frequencies).numpy()


def _yarn_temperature(yarn: YarnConfig, latent: bool) -> dict[str, Any]:
    if not yarn.truncate or (yarn.beta_fast, yarn.beta_slow) != (32.0, 1.0):
        raise CheckpointError("llama.cpp knows YaRN with beta_fast 32, beta_slow 1 and truncate only")
    if not latent:
        amplitude = yarn_amplitude(yarn) / yarn_mscale(yarn.factor, 1.0)
        return {} if amplitude == 1.0 else {_AMPLITUDE: amplitude}
    if yarn.attention_factor is not None or yarn.mscale is None or yarn.mscale != yarn.mscale_all_dim:
        raise CheckpointError("llama.cpp knows YaRN with latent attention only where mscale is mscale_all_dim")
    return {_LOG_MULTIPLIER: 0.1 * yarn.mscale}


def _read_yarn(fields: Fields, values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    if factor < 1.0:
        raise fields.error(_FACTOR, f"should be 1 or more with YaRN, got {factor}")
    found: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": fields.integer(_ORIGINAL, values["max_position_embeddings"]),
        **{name: fields.real(key) for name, key in _BETAS.items() if key in fields},
    }
    amplitude = fields.real(_AMPLITUDE, 1.0)
    if amplitude != 1.0:
        found["attention_factor"] = amplitude * yarn_mscale(factor, 1.0)
    if fields.architecture == "deepseek2" and fields.real(_LOG_MULTIPLIER, 0.0):
        mscale = round(fields.real(_LOG_MULTIPLIER) / 0.1, 6)
        found |= {"mscale": mscale, "mscale_all_dim": mscale}
    return found


def _read_factors(fields: Fields, values: Mapping[str, Any], theta: float, file: GGUFFile) -> dict[str, Any] | None:
    """The parameters of Llama 3's scaling, which are not in the file, from the factors, which follow from them."""
    info = file.tensors[ROPE_FACTORS]
    dim = values.get("head_dim") or values["hidden_size"] // max(values["num_attention_heads"], 1)
    if info.shape != (dim // 2,) or info.kind not in READABLE:
        raise CheckpointError(
            f"{file.path}: tensor {ROPE_FACTORS} is {info.kind.name} of shape {info.shape}, expected F32 of shape "
            f"({dim // 2},)"
        )
    factors = dequantize(file.raw(ROPE_FACTORS), info.kind)
    if np.allclose(factors, 1.0, rtol=_CLOSE):
        return None
    original = fields.integer(_ORIGINAL, _LLAMA3_ORIGINAL)
    for llama3 in _candidates(factors, dim, theta, original):
        if np.allclose(_factors(dim, theta, llama3), factors, rtol=_CLOSE):
            return {
                "rope_type": "llama3",
                "original_max_position_embeddings": original,
                **llama3.model_dump(exclude={"kind", "original_max_positions"}),
            }
    raise CheckpointError(f"{file.path}: tensor {ROPE_FACTORS} is not of Llama 3's scaling, the only one supported")


def _candidates(factors: np.ndarray, dim: int, theta: float, original: int) -> list[Llama3RopeConfig]:
    """Parameters that could give these factors: Meta's own, and those of the line through the blended ones."""
    if not np.all(np.isfinite(factors)) or factors.min() < 1.0 or original < 1 or not 1.0 < theta < math.inf:
        return []
    factor = round(float(factors.max()), 4)
    found = [Llama3RopeConfig(factor=factor, low_freq_factor=1, high_freq_factor=4, original_max_positions=original)]
    # A frequency that turns t times within the original context is kept to (t - low) / (high - low).
    turns = Rope(dim, theta).inverse_frequencies.numpy() * original / (2 * math.pi)
    kept = (1 / factors - 1 / factor) / (1 - 1 / factor)
    blended = np.flatnonzero((kept > 1e-3) & (kept < 1 - 1e-3))
    if len(blended) < 2:
        return found
    fast, slow = blended[0], blended[-1]
    slope = float(kept[fast] - kept[slow]) / float(turns[fast] - turns[slow])
    if slope > 0:
        low = turns[slow] - kept[slow] / slope
        low, high = (round(float(x), 3) for x in (low, low + 1 / slope))
        if 0 < low < high:
            found.append(
                Llama3RopeConfig(
                    factor=factor, low_freq_factor=low, high_freq_factor=high, original_max_positions=original
                )
            )
    return found
