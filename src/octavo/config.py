"""Typed, frozen configs: unknown keys get the nearest name, dotted overrides, errors in one line.

Every config class of the project derives from `Config` and stands beside its owner, with a docstring under each field.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from octavo.errors import ConfigError


class Config(BaseModel):
    """Base of every config: frozen, strict about names and types; field docstrings become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Build from plain values (YAML, JSON). Raises ConfigError naming `where` and the dotted field."""
        try:
            # Not strict about what YAML cannot say: tuples are written as lists there.
            return cls.model_validate(values, strict=False)
        except pydantic.ValidationError as error:
            raise ConfigError(_one_line(cls, error, where)) from error

    def dump(self) -> dict[str, Any]:
        """Plain values that `parse` reads back to an equal config."""
        return self.model_dump(mode="json")


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of nested `values` with each `a.b=c` set; `c` is read as YAML. Raises ConfigError."""
    result = _copy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {override!r}: expected key.subkey=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: the value is not YAML") from error
        *parents, leaf = path.strip().split(".")
        node = result
        for depth, name in enumerate(parents):
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                where = ".".join(parents[: depth + 1])
                raise ConfigError(f"--set {override!r}: {where} is a value ({child!r}), not a group of keys")
            node = child
        node[leaf] = value
    return result


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the closest known name, or ' (known: ...)' where none is close."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]}?)"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" (known: {shown})" if names else ""


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_copy(child) for child in value]
    return value


def _one_line(cls: type[BaseModel], error: pydantic.ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    field = ".".join(path) or "value"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {field}{nearest(path[-1], _fields_at(cls, path[:-1]))}{more}"
    if first["type"] == "missing":
        return f"{where}: {field} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    got = repr(first["input"])
    if first["type"] == "value_error" or len(got) > 60:
        return f"{where}: {field}: {message}{more}"
    return f"{where}: {field}: {message}, got {got}{more}"


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the config class found by following `path` from `cls` (empty where it is lost)."""
    classes: list[type[BaseModel]] = [cls]
    for part in path:
        found = [field.annotation for model in classes if (field := model.model_fields.get(part))]
        # A part that is no field is a list index, a key of a mapping or the tag of a union: stay.
        if found:
            classes = [inner for annotation in found for inner in _configs_in(annotation)]
        else:
            tagged = [model for model in classes if part in _tags(model)]
            classes = tagged or classes
    return [name for model in classes for name in model.model_fields]


def _configs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _configs_in(inner)]


def _tags(model: type[BaseModel]) -> set[str]:
    kind = model.model_fields.get("kind")
    return {str(value) for value in getattr(kind.annotation, "__args__", ())} if kind else set()
