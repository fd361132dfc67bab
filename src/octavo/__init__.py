"""Octavo: an open press for sparse reasoning models on an ordinary computer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.library import Model, Reply, load
    from octavo.text.messages import Message

__version__ = "0.1.0"
__all__ = ["Message", "Model", "Reply", "__version__", "load"]

_HOMES = {"load": "library", "Model": "library", "Reply": "library", "Message": "text.messages"}


def __getattr__(name: str) -> Any:
    """What a library's user needs, brought when it is asked for: `import octavo` alone stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'octavo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"octavo.{_HOMES[name]}"), name)
