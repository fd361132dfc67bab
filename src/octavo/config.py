"""Typed, frozen configs: unknown keys get the nearest name, dotted overrides, errors in one line.

Every config class of the project derives from `Config` and stands beside its owner, with a docstring under each field.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from octavo.errors import ConfigError


class Config(BaseModel):
    """Base of every config: frozen, strict about names and types, finite; field docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Build from plain values (YAML, JSON). Raises ConfigError naming `where` and the dotted field.

        Types are exact (no "8" or true for 8), but read as JSON gives them: a tuple is written as a list, an enum or a
        path as a string.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: expected a group of keys, got {_shorten(values)}")
        try:
            return cls.model_validate_json(json.dumps(values, default=_plain))
        except pydantic.ValidationError as error:
            raise ConfigError(_one_line(cls, error, values, where)) from error

    def dump(self) -> dict[str, Any]:
        """Plain values that `parse` reads back to an equal config."""
        return self.model_dump(mode="json")


class _YamlLoader(yaml.SafeLoader):
    """YAML as people expect it: 1e-3 is a number (YAML 1.1 wants 1.0e-3), and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Merge keys (<<) may give a key again on purpose, so only keys written here are looked at.
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str, where: str) -> Any:
    """Read YAML (`where` names it in errors). Raises ConfigError with the line."""
    try:
        return yaml.load(text, Loader=_YamlLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: this is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: this is not YAML: {' '.join(str(error).split())}") from error


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of nested `values` with each `a.b=c` set; `c` is read as YAML. Raises ConfigError."""
    result = _copy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, leaf = [name.strip() for name in path.split(".")]
        if not equals or not leaf or not all(parents):
            raise ConfigError(f"--set {override!r}: expected key.subkey=value")
        value = load_yaml(text, f"--set {override!r}")
        node = result
        for depth, name in enumerate(parents):
            child = node.get(name)
            if child is None:  # a group that was absent or null is begun here
                child = node[name] = {}
            if not isinstance(child, dict):
                where = ".".join(parents[: depth + 1])
                raise ConfigError(f"--set {override!r}: {where} is a value ({_shorten(child)}), not a group of keys")
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


def _plain(value: Any) -> Any:
    """What JSON cannot say by itself: configs, other mappings, paths, dates."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if isinstance(value, Mapping) else str(value)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_copy(child) for child in value]
    return value


def _shorten(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _one_line(cls: type[BaseModel], error: pydantic.ValidationError, values: Mapping[str, Any], where: str) -> str:
    problems = error.errors()
    # A misspelt key makes two problems, one unknown and one missing: the unknown one tells more.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    path = written_path(first["loc"], values, keep_last=first["type"] in ("missing", "extra_forbidden"))
    place = f"{where}: {'.'.join(path)}" if path else where
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            text = f"{where}: unknown key {'.'.join(path)}{nearest(path[-1], _fields_at(cls, first['loc'][:-1]))}"
        case "missing":
            text = f"{place} is missing"
        case "union_tag_not_found":
            text = f"{place}.{context['discriminator'].strip(chr(39))} is missing"
        case "union_tag_invalid":
            tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
            tag = str(context["tag"])
            text = f"{place}.{context['discriminator'].strip(chr(39))}: unknown value {tag!r}{nearest(tag, tags)}"
        case "value_error":
            text = f"{place}: {first['msg'].removeprefix('Value error, ')}"
        case _:
            text = f"{place}: {first['msg'].replace('Input should', 'should')}, got {_shorten(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join((text + more).split())


def written_path(loc: tuple[int | str, ...], values: Any, keep_last: bool) -> list[str]:
    """The part of pydantic's path that the user wrote: without tags of unions, which are no keys of the values."""
    path: list[str] = []
    node = values
    for depth, part in enumerate(loc):
        if isinstance(node, Mapping):
            if part not in node and not (keep_last and depth == len(loc) - 1):
                continue
            node = node.get(part)
        elif isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part]
        else:
            continue
        path.append(str(part))
    return path


def _fields_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the config class found by following `loc` from `cls`."""
    classes: list[type[BaseModel]] = [cls]
    for part in loc:
        found = [field.annotation for model in classes if (field := model.model_fields.get(str(part)))]
        # A part that is no field is a list index, a key of a mapping or the tag of a union: stay, or choose by tag.
        if found:
            classes = [inner for annotation in found for inner in _configs_in(annotation)]
        else:
            classes = [model for model in classes if part in _tags(model)] or classes
    return [name for model in classes for name in model.model_fields]


def _configs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _configs_in(inner)]


def _tags(model: type[BaseModel]) -> set[str]:
    kind = model.model_fields.get("kind")
    return {str(value) for value in getattr(kind.annotation, "__args__", ())} if kind else set()
