"""What a user asks of `octavo adapt`, as it is typed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import ValidationError

from octavo.config import load_yaml, nearest
from octavo.errors import ConfigError
from octavo.tasks.asking import Reading
from octavo.tasks.verifiers.build import VERIFIER

Method = Literal["auto", "sft", "grpo", "distill", "on-policy"]
METHODS: tuple[Method, ...] = get_args(Method)
_KINDS = ("exact", "numeric", "choice", "regex", "math", "json_schema", "reasoning_gym", "code")
_SHORT = {"gym": "reasoning_gym", "json": "json_schema", "number": "numeric"}


@dataclass(frozen=True)
class Wishes:
    """Everything that `octavo adapt` can be told; None: it chooses, and says what."""

    model: str
    data: tuple[str, ...]
    method: Method = "auto"
    minutes: float = 30.0
    """Of everything: measuring before and after, training, and measuring while training."""
    verifier: dict[str, Any] | None = None
    """Config of the verifier."""
    lora: dict[str, Any] | None = None
    """Config of the adapters; None: all weights are trained."""
    teacher: str | None = None
    """A MODEL, or the address of a server."""
    teacher_model: str | None = None
    """What the server calls the model."""
    teacher_key: str | None = None
    """Environment variable with the server's key."""
    held_out: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    language: str = "en"
    reading: Reading | None = None
    system: str | None = None
    suffix: str | None = None
    max_tokens: int | None = None
    seed: int = 0
    threads: int | None = None
    overrides: tuple[str, ...] = ()


def parse_verifier(text: str) -> dict[str, Any]:
    """`numeric`, `checks.py:score`, `{kind: numeric, tolerance: 0.01}`, `schema.json` (of json_schema), or a weighted
    sum of such: `0.8*numeric + 0.2*checks.py:tidy`. Raises ConfigError.
    """
    text = text.strip()
    if text.startswith("{"):
        values = load_yaml(text, "--verifier")
        return _checked(values, text)
    parts = [part.strip() for part in text.split("+")]
    if len(parts) == 1 and "*" not in text:
        return _checked(_single(text), text)
    return _checked({"kind": "weighted", "parts": [_part(part) for part in parts]}, text)


def _part(text: str) -> dict[str, Any]:
    left, star, right = (piece.strip() for piece in text.partition("*"))
    if not star:
        return {"verifier": _single(left)}
    try:
        return {"verifier": _single(right), "weight": float(left)}
    except ValueError:
        raise ConfigError(f"--verifier: expected WEIGHT*VERIFIER, as 0.8*numeric, got {text!r}") from None


def _single(text: str) -> dict[str, Any]:
    if ".py:" in text:
        if not Path(text.rpartition(":")[0]).is_file():
            raise ConfigError(f"--verifier {text}: no such file {text.rpartition(':')[0]}")
        return {"kind": "python", "function": text}
    if text.endswith(".json"):
        return {"kind": "json_schema", "path": text}
    kind = _SHORT.get(text, text)
    if kind not in _KINDS:
        known = (*_KINDS, "FILE.py:FUNCTION")
        raise ConfigError(f"--verifier: no verifier {text!r}{nearest(kind, known)}")
    return {"kind": kind}


def _checked(values: Any, text: str) -> dict[str, Any]:
    """As the config's class writes it."""
    try:
        config = VERIFIER.validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--verifier {text}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    return config.dump()


def parse_columns(texts: list[str]) -> dict[str, str]:
    """`question=frage` -> {question: frage}. Raises ConfigError."""
    columns = {}
    for text in texts:
        role, equals, name = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--column: expected ROLE=NAME, as question=frage, got {text!r}")
        columns[role.strip()] = name.strip()
    return columns


def as_yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
