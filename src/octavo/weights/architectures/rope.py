"""The rotation as config.json has it: in `rope_parameters` (newer) or as `rope_theta` and `rope_scaling` (older).

Written in the older spelling, which old and new tools read.
"""

from collections.abc import Mapping
from typing import Any

from octavo.config import Config
from octavo.model.config import LinearRopeConfig, Llama3RopeConfig, ModelConfig, YarnConfig
from octavo.weights.architectures.values import Values

_SCALINGS: dict[str, type[Config]] = {"linear": LinearRopeConfig, "llama3": Llama3RopeConfig, "yarn": YarnConfig}
# Fields whose key in config.json is another.
_KEYS = {"original_max_positions": "original_max_position_embeddings"}


def read_rope(values: Values) -> dict[str, Any]:
    """The fields rope_theta and rope_scaling. Raises CheckpointError for rotations that cannot be built."""
    # The order in which transformers looks, where a file has both.
    group = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(group, Mapping):
        raise values.error(f"the rotary parameters should be a group of keys, got {group!r}")
    if any(isinstance(value, Mapping) for value in group.values()):
        raise values.error("rotary parameters that differ from layer to layer are not supported")
    rope = Values(group, values.where)
    if rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1)) != 1:
        raise values.error("partial_rotary_factor is not 1, and heads that are rotated in part are not supported")
    theta = group["rope_theta"] if "rope_theta" in group else values.values.get("rope_theta", 10000.0)
    return {"rope_theta": theta, "rope_scaling": _read_scaling(rope, values)}


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The keys rope_theta and rope_scaling."""
    if config.rope_scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    fields = config.rope_scaling.model_dump(exclude_none=True)
    kind = fields.pop("kind")
    if fields.get("truncate"):
        del fields["truncate"]  # older readers warn of it
    scaling = {"rope_type": kind, "type": kind, **{_KEYS.get(name, name): value for name, value in fields.items()}}
    return {"rope_theta": config.rope_theta, "rope_scaling": scaling}


def _read_scaling(rope: Values, values: Values) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise values.error(f"rope scaling {kind!r} is not supported (known: default, {', '.join(_SCALINGS)})")
    found = {name: rope.get(_KEYS.get(name, name)) for name in _SCALINGS[kind].model_fields if name != "kind"}
    if "original_max_positions" in found:
        # Some files have it beside the group, which is what transformers prefers; without any, it is the whole context.
        beside = values.get("original_max_position_embeddings", found["original_max_positions"])
        found["original_max_positions"] = values.need("max_position_embeddings") if beside is None else beside
    if kind == "yarn":
        mscale, all_dim = found["mscale"] or None, found["mscale_all_dim"] or None
        if mscale == 1 and all_dim is None:
            mscale = None  # the temperature of YaRN's paper, said aloud
        found |= {"mscale": mscale, "mscale_all_dim": all_dim}
    return {"kind": kind} | {name: value for name, value in found.items() if value is not None}
