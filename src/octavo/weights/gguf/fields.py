"""Metadata of a GGUF file by type: what a file says may be absent or of any type."""

import math
from typing import Any

import numpy as np

from octavo.errors import CheckpointError
from octavo.weights.gguf.reader import GGUFFile
from octavo.weights.source import shown


class Fields:
    """Keys of one architecture (`llama.block_count` is `block_count`). Every method raises CheckpointError for a value
    of another type, and where there is no default, for an absent key; both name file and key."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        name = self._need("general.architecture")
        if not isinstance(name, str):
            raise self.error("general.architecture", f"should be a name, got {shown(name)}")
        self.architecture = name

    def __contains__(self, key: str) -> bool:
        return self._key(key) in self._file.metadata

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number, 0 or more. A list of one number repeated (a value for each layer) is that number."""
        value = self._value(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if type(value) is not int or value < 0:
            raise self.error(key, f"should be a whole number, got {shown(value)}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number: the shortest decimal of the float32 that the file holds, 1e-5 and not 9.99999975e-6."""
        value = self._value(key, default)
        with np.errstate(over="ignore"):
            number = float(str(np.float32(value))) if type(value) in (int, float) else math.nan
        if not math.isfinite(number):
            raise self.error(key, f"should be a finite number, got {shown(value)}")
        return number

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"should be true or false, got {shown(value)}")
        return value

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"should be a string, got {shown(value)}")
        return value

    def error(self, key: str, problem: str) -> CheckpointError:
        """The error to raise, naming file and key."""
        return CheckpointError(f"{self._file.path}: {self._key(key)} {problem}")

    def _value(self, key: str, default: Any) -> Any:
        found = self._file.metadata.get(self._key(key), default)
        return self._need(self._key(key)) if found is None else found

    def _need(self, key: str) -> Any:
        if key not in self._file.metadata:
            raise CheckpointError(f"{self._file.path}: key {key} is missing")
        return self._file.metadata[key]

    def _key(self, key: str) -> str:
        return key if key.startswith(("general.", "split.")) else f"{self.architecture}.{key}"
