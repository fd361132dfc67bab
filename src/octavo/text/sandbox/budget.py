"""The work that one rendering may still do.

One unit is a step, or an item of a sequence, or 64 characters copied: a microsecond or two.
"""

from collections.abc import ItemsView, Iterable, KeysView, Mapping, Sized, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.utils import Namespace

_CHARACTERS_A_UNIT = 64
_REFERENCES_A_UNIT = 8
_CHARACTER_PAIRS_A_UNIT = 4096
_MAX_DEPTH = 64


class Budget:
    """Counts down; raises SecurityError at its end."""

    def __init__(self, units: int) -> None:
        self._left = units

    def charge(self, units: int) -> None:
        """Spend so many units."""
        self._left -= units
        if self._left < 0:
            raise SecurityError("it does more work, or writes more, than a conversation of this length can need")

    def copy(self, value: Any, times: int = 1) -> None:
        """Spend what it costs to copy a string, or the references of a sequence; other values are one step."""
        if isinstance(value, str):
            self.charge(1 + len(value) * times // _CHARACTERS_A_UNIT)
        elif isinstance(value, (list, tuple, dict)):
            self.charge(1 + len(value) * times // _REFERENCES_A_UNIT)
        else:
            self.charge(1)

    def search(self, text: Any, wanted: Any) -> None:
        """Spend what it costs at worst to look for one string in another."""
        if isinstance(text, str) and isinstance(wanted, str):
            self.charge(len(text) * len(wanted) // _CHARACTER_PAIRS_A_UNIT)

    def replace(self, text: Any, old: Any, new: Any) -> None:
        """Spend what it costs to replace one string by another in a text."""
        self.search(text, old)
        if isinstance(text, str) and isinstance(old, str):
            self.copy(new, times=text.count(old))

    def weigh(self, value: Any, depth: int = _MAX_DEPTH) -> None:
        """Spend what it costs to read a value whole, as printing and comparing do: what stands twice counts twice."""
        if isinstance(value, str):
            return self.copy(value)
        if depth == 0:
            raise SecurityError(f"it nests values deeper than {_MAX_DEPTH}")
        if isinstance(value, Namespace):
            value = object.__getattribute__(value, "_Namespace__attrs")
        self.charge(1)
        if isinstance(value, Mapping):
            self.weigh(list(value.keys()), depth - 1)
            value = list(value.values())
        if isinstance(value, (list, tuple, KeysView, ItemsView, ValuesView)):
            for item in value:
                self.weigh(item, depth - 1)
        return None

    def take(self, items: Iterable[Any], units: int = 1) -> list[Any]:
        """All the items as a list, for so many units each."""
        if isinstance(items, Sized):
            self.charge(1 + len(items) * units)
            return list(items)
        taken = []
        for item in items:
            self.charge(units)
            taken.append(item)
        return taken


class MeteredContext(Context):
    """The context of one rendering."""

    budget: Budget
