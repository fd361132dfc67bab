"""The models of a server, by the names under which programs ask for them."""

from collections.abc import Sequence
from pathlib import Path

from octavo.errors import ConfigError
from octavo.models import find_model


def served_models(given: Sequence[str]) -> dict[str, Path]:
    """Each MODEL or NAME=MODEL as its path, by name. Raises CheckpointError, ConfigError."""
    models: dict[str, Path] = {}
    for argument in given:
        name, equals, model = argument.partition("=")
        if not equals or Path(argument).exists():
            name, model = _name_of(argument), argument
        if not name:
            raise ConfigError(f"{argument}: expected MODEL or NAME=MODEL")
        if name in models:
            raise ConfigError(f"two models would be served as {name}: name one of them, as other={model}")
        models[name] = find_model(model)
    return models


def _name_of(model: str) -> str:
    """The last part of a path, without .gguf; a name that octavo pull knows is itself."""
    path = Path(model)
    return path.resolve().name.removesuffix(".gguf") if path.exists() else model
