"""The models of a server: which are in memory, loaded when somebody asks, dropped when idle and room is needed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from octavo.config import nearest
from octavo.errors import OctavoError
from octavo.model.accounting import Accounting
from octavo.serve.config import ServiceConfig
from octavo.serve.errors import ApiError
from octavo.serve.loaded import Loaded, needed_bytes
from octavo.weights.open import read_config

log = logging.getLogger(__name__)
MEMORY_SHARE = 0.6
"""Of the machine's memory, where the config names no budget."""
RETRY_SECONDS = 5


@dataclass(frozen=True)
class ModelInfo:
    """What is told of a model that is served."""

    name: str
    state: Literal["idle", "loading", "loaded", "failed"]
    error: str = ""
    """Why it could not be loaded the last time; it is tried again at the next request."""
    context_tokens: int | None = None
    parameters: int | None = None
    memory_bytes: int | None = None


@dataclass
class _Shelf:
    """The place of one model."""

    path: Path
    loaded: Loaded | None = None
    loading: "asyncio.Task[Loaded] | None" = None
    leases: int = 0
    needed_bytes: int = 0
    error: str = ""


class Pool:
    """Belongs to one event loop: all methods are called on it."""

    def __init__(self, paths: Mapping[str, Path], config: ServiceConfig) -> None:
        self._config = config
        self._budget_bytes = config.memory_bytes or int(psutil.virtual_memory().total * MEMORY_SHARE)
        # In the order of their last use, the latest at the end.
        self._shelves = {name: _Shelf(path) for name, path in paths.items()}

    @property
    def loaded(self) -> list[Loaded]:
        """Models in memory."""
        return [shelf.loaded for shelf in self._shelves.values() if shelf.loaded]

    @property
    def used_bytes(self) -> int:
        """What the models in memory, and those being loaded, are counted with."""
        return sum(shelf.needed_bytes for shelf in self._shelves.values())

    def infos(self) -> list[ModelInfo]:
        """All models, by name."""
        return [self._info(name) for name in sorted(self._shelves)]

    def info(self, name: str) -> ModelInfo:
        """One model. Raises ApiError for an unknown name."""
        self._shelf(name)
        return self._info(name)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Loaded]:
        """The model, kept in memory meanwhile. Raises ApiError: unknown, no room, or not to be loaded."""
        shelf = self._shelf(name)
        self._shelves[name] = self._shelves.pop(name)
        shelf.leases += 1
        try:
            yield shelf.loaded or await self._load(name, shelf)
        finally:
            shelf.leases -= 1

    def _shelf(self, name: str) -> _Shelf:
        shelf = self._shelves.get(name)
        if shelf is None:
            hint = nearest(name[:200], self._shelves)
            raise ApiError(404, f"no model {name[:200]!r} is served here{hint}", "model_not_found", "model")
        return shelf

    async def _load(self, name: str, shelf: _Shelf) -> Loaded:
        if shelf.loading is None:
            shelf.loading = asyncio.create_task(self._bring(name, shelf))
            shelf.loading.add_done_callback(lambda task: task.exception())  # nobody may be left to hear of it
        # Shielded: whoever asked first may leave while others wait for the same model.
        return await asyncio.shield(shelf.loading)

    async def _bring(self, name: str, shelf: _Shelf) -> Loaded:
        try:
            needed = await asyncio.to_thread(
                lambda: needed_bytes(read_config(shelf.path), self._config, self._budget_bytes)
            )
            self._make_room(name, needed)
            shelf.needed_bytes = needed
            shelf.loaded = await asyncio.to_thread(Loaded, name, shelf.path, self._config, self._budget_bytes)
            shelf.error = ""
            return shelf.loaded
        except ApiError:
            raise
        except Exception as error:
            shelf.needed_bytes = 0
            reason = str(error) if isinstance(error, OctavoError) else type(error).__name__
            log.error("model %s cannot be loaded: %s", name, reason, exc_info=not isinstance(error, OctavoError))
            shelf.error = " ".join(reason.replace(str(shelf.path), name).split())
            raise ApiError(503, f"model {name} cannot be loaded: {shelf.error}", "model_not_loaded", "model") from error
        finally:
            shelf.loading = None

    def _make_room(self, name: str, needed: int) -> None:
        """Drop idle models, the least recently used first, until `needed` bytes are free. Raises ApiError."""
        if needed > self._budget_bytes:
            message = f"model {name} needs {_gib(needed)}, and this server may use {_gib(self._budget_bytes)}"
            raise ApiError(503, f"{message} (octavo serve --memory)", "out_of_memory", "model")
        idle = [shelf for shelf in self._shelves.values() if shelf.loaded and not shelf.leases]
        for shelf in idle:
            if self.used_bytes + needed <= self._budget_bytes:
                return
            shelf.loaded, shelf.needed_bytes = None, 0
        if self.used_bytes + needed > self._budget_bytes:
            message = f"no room for model {name} while others are at work"
            raise ApiError(429, message, "model_busy", "model", retry_after_seconds=RETRY_SECONDS)

    def _info(self, name: str) -> ModelInfo:
        shelf = self._shelves[name]
        state = "loaded" if shelf.loaded else "loading" if shelf.loading else "failed" if shelf.error else "idle"
        if shelf.loaded is None:
            return ModelInfo(name, state, shelf.error)
        parameters = Accounting.of(shelf.loaded.config).total_parameters
        return ModelInfo(name, state, "", shelf.loaded.context_tokens, parameters, shelf.needed_bytes)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
