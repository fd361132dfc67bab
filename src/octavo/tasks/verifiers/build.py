"""Any verifier, by its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from octavo.tasks.verifiers.choice import ChoiceConfig, ChoiceVerifier
from octavo.tasks.verifiers.code import CodeConfig, CodeVerifier
from octavo.tasks.verifiers.exact import ExactConfig, ExactVerifier
from octavo.tasks.verifiers.gym import GymVerifier, GymVerifierConfig
from octavo.tasks.verifiers.json_schema import JsonSchemaConfig, JsonSchemaVerifier
from octavo.tasks.verifiers.math import MathConfig, MathVerifier
from octavo.tasks.verifiers.numeric import NumericConfig, NumericVerifier
from octavo.tasks.verifiers.python import PythonConfig, PythonVerifier
from octavo.tasks.verifiers.regex import RegexConfig, RegexVerifier
from octavo.tasks.verifiers.verifier import Verifier
from octavo.tasks.verifiers.weighted import SimpleConfig, WeightedConfig, WeightedVerifier


def _named(value: Any) -> Any:
    """A name for a config: "numeric", or "checks.py:score" for a function of the user's."""
    if not isinstance(value, str):
        return _with_tuples(value)
    return {"kind": "python", "function": value} if ".py:" in value else {"kind": value}


def _with_tuples(value: Any) -> Any:
    """Lists of JSON as tuples: behind a validator written in Python, pydantic no longer takes one for the other."""
    if isinstance(value, Mapping):
        return {name: part if name == "json_schema" else _with_tuples(part) for name, part in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


VerifierConfig = Annotated[
    Annotated[SimpleConfig | WeightedConfig, Field(discriminator="kind")], BeforeValidator(_named)
]
"""Any verifier; `kind` says which. Where only the kind is to be said, its name is enough."""

VERIFIER = TypeAdapter[SimpleConfig | WeightedConfig](VerifierConfig)
"""Reads a config by itself, outside of another one."""


def build_verifier(config: SimpleConfig | WeightedConfig) -> Verifier:
    """Build it; no foreign code is run. Raises ConfigError, DataError (unreadable file) or GradingError."""
    match config:
        case ExactConfig():
            return ExactVerifier()
        case NumericConfig():
            return NumericVerifier(config)
        case ChoiceConfig():
            return ChoiceVerifier(config)
        case RegexConfig():
            return RegexVerifier(config)
        case MathConfig():
            return MathVerifier()
        case JsonSchemaConfig():
            return JsonSchemaVerifier(config)
        case GymVerifierConfig():
            return GymVerifier(config)
        case CodeConfig():
            return CodeVerifier(config)
        case PythonConfig():
            return PythonVerifier(config)
        case WeightedConfig():
            return WeightedVerifier([(build_verifier(part.verifier), part.weight) for part in config.parts])


def files_of(config: SimpleConfig | WeightedConfig) -> tuple[Path, ...]:
    """Files that decide how it judges: a run's fingerprint covers their content."""
    match config:
        case PythonConfig():
            return (config.path,)
        case JsonSchemaConfig(path=Path() as path):
            return (path,)
        case WeightedConfig():
            return tuple(file for part in config.parts for file in files_of(part.verifier))
    return ()
