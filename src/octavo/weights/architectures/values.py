"""A config.json, or a part of it, on its way in: what it says may be absent, null or of any type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.errors import CheckpointError


@dataclass(frozen=True)
class Values:
    """Keys and values of the file that `where` names in errors."""

    values: Mapping[str, Any]
    where: str

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """The value, which may be null. Raises CheckpointError where the key is absent."""
        if key not in self.values:
            raise self.error(f"{key} is missing")
        return self.values[key]

    def integer(self, key: str, default: int | None = None) -> int:
        """A number to count with. Raises CheckpointError for other types, and without a default for an absent key."""
        value = self.need(key) if default is None else self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{key} should be an integer, got {value!r}")
        return value

    def error(self, problem: str) -> CheckpointError:
        """The error to raise, naming the file."""
        return CheckpointError(f"{self.where}: {problem}")
