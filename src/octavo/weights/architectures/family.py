"""What a family of models is: tables between keys of config.json and fields of ModelConfig, read in both directions.

One table serves reading and writing, so the two cannot disagree. What no table can say, a family says in two functions.
Fields are dotted paths into ModelConfig: `moe.experts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from octavo.errors import CheckpointError, ConfigError
from octavo.model.config import ModelConfig
from octavo.weights.architectures.rope import read_rope, write_rope
from octavo.weights.architectures.values import Values

# What every family calls alike.
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "attention.heads",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "init_std",
}
_DEFAULTS = {"tie_word_embeddings": False, "initializer_range": 0.02}
_FIXED = {"hidden_act": "silu"}


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """One model_type of `transformers`."""

    model_type: str
    architecture: str
    """Name of the class that `transformers` builds."""
    implied: Mapping[str, Any]
    """Fields in which all models of the family agree: given when read, demanded when written."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Key of config.json -> field, beside what every family calls alike."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What these keys mean where they are absent or null; other keys must be there."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Keys that can be built with this value only, which is also what their absence means."""
    read_more: Callable[[Values], dict[str, Any]] = _nothing
    """Further fields. Raises CheckpointError for what cannot be built."""
    write_more: Callable[[ModelConfig], dict[str, Any]] = _nothing
    """Further keys. Raises CheckpointError for what `transformers` could not open."""

    def read(self, values: Values) -> ModelConfig:
        """The model that a config.json of this family describes. Raises CheckpointError."""
        for key, only in (_FIXED | dict(self.fixed)).items():
            if values.get(key, only) != only:
                raise values.error(f"{key} is {values.get(key)!r}, and only {only!r} is supported")
        defaults = _DEFAULTS | dict(self.defaults)
        fields = dict(self.implied)
        for key, path in (_KEYS | dict(self.keys)).items():
            fields[path] = values.get(key, defaults[key]) if key in defaults else values.need(key)
        fields |= read_rope(values) | self.read_more(values)
        try:
            return ModelConfig.parse(_nested(fields), values.where)
        except ConfigError as error:
            raise CheckpointError(str(error)) from error

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The config.json that describes this model. Raises CheckpointError where the family has no such models."""
        differences = [
            f"{path} {value!r} (got {found!r})"
            for path, value in self.implied.items()
            if (found := attrgetter(path)(config)) != value
        ]
        if differences:
            raise CheckpointError(
                f"no Hugging Face layout describes this model; the nearest, {self.model_type}, has "
                + ", ".join(differences)
            )
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "torch_dtype": "float32",
            "use_cache": True,
            **_FIXED,
            **self.fixed,
            **{key: attrgetter(path)(config) for key, path in (_KEYS | dict(self.keys)).items()},
            **write_rope(config),
            **self.write_more(config),
        }


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"moe.experts": 8} -> {"moe": {"experts": 8}}."""
    result: dict[str, Any] = {}
    for path, value in fields.items():
        *parents, leaf = path.split(".")
        node = result
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    return result
