"""The cache: where fetched models lie. What lies under models/ is whole; what is being fetched lies under unfinished/.

    <cache>/models/<owner>--<name>/             a Hugging Face folder, or one .gguf file, with source.json
    <cache>/unfinished/<owner>--<name>/<tag>/   what a pull has so far; the next one goes on there

Files copied into a folder under models/ by hand are taken as they are.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from octavo.errors import DataError, PullError, StorageError
from octavo.pull.catalogue import Reference
from octavo.storage import cache_folder, fsync_folder, read_json, storage_errors, write_json

_SOURCE = "source.json"
_SPARE_BYTES = 100_000_000
"""Left free on the disk beside what is fetched."""


@dataclass(frozen=True)
class Cache:
    """One folder for all models that were fetched."""

    path: Path

    @classmethod
    def standard(cls) -> Self:
        """See `storage.cache_folder`."""
        return cls(cache_folder())

    def place(self, reference: Reference) -> Path:
        """Folder of this model, whether it is there or not."""
        return self.path / "models" / reference.slug

    def find(self, reference: Reference) -> Path | None:
        """The model folder or GGUF file, if it is there."""
        return model_in(self.place(reference))

    def source(self, reference: Reference) -> dict[str, Any]:
        """Where the model that is there came from; empty for files copied by hand."""
        try:
            return dict(read_json(self.place(reference) / _SOURCE))
        except (DataError, TypeError, ValueError):
            return {}

    @contextmanager
    def unfinished(self, reference: Reference, tag: str) -> Iterator[Path]:
        """A folder to fetch into, this process's alone; what an earlier pull of the same `tag` left is still in it.

        `tag` is a source, or a source and a commit (`hub-1a2b`): leftovers of its other commits are removed. Raises
        PullError where another process is fetching this model, StorageError.
        """
        folder = self.path / "unfinished" / reference.slug
        lock = folder.with_name(f"{folder.name}.lock")
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PullError(f"{reference}: another process is fetching it; wait for it or stop it") from None
            with storage_errors(folder):
                for stale in folder.iterdir():
                    if stale.name != tag and stale.name.partition("-")[0] == tag.partition("-")[0]:
                        shutil.rmtree(stale)
                (folder / tag).mkdir(parents=True, exist_ok=True)
            yield folder / tag
        finally:
            os.close(descriptor)

    def finish(self, fetched: Path, reference: Reference, source: dict[str, Any]) -> Path:
        """Put a whole folder out of `unfinished` into its place, replacing what is there; returns the model's path."""
        final = self.place(reference)
        write_json(fetched / _SOURCE, source)
        with storage_errors(final):
            fsync_folder(fetched)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                os.rename(final, fetched.with_name("replaced"))
            os.rename(fetched, final)
            fsync_folder(final.parent)
            shutil.rmtree(fetched.parent)
        model = model_in(final)
        assert model is not None, final
        return model

    def require_space(self, needed_bytes: int) -> None:
        """Raise StorageError if the disk cannot take so much more."""
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
        if needed_bytes + _SPARE_BYTES > free:
            raise StorageError(
                f"{self.path}: {gigabytes(needed_bytes)} are still to be fetched and {gigabytes(free)} are free; "
                "free some space, or set OCTAVO_CACHE to a folder on another disk"
            )


def model_in(folder: Path) -> Path | None:
    """The model that a folder holds: itself (a Hugging Face folder) or its only GGUF file."""
    if (folder / "config.json").is_file():
        return folder
    files = sorted(folder.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def gigabytes(count: int) -> str:
    """`0.3 MB`, `98 MB`, `0.27 GB`, `15.2 GB`; 10^9 bytes."""
    if count < 100_000_000:
        return f"{count / 1e6:.{1 if count < 1e7 else 0}f} MB"
    return f"{count / 1e9:.{2 if count < 1e10 else 1}f} GB"
