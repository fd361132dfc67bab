"""Writes that a crash cannot tear: whole files by rename, JSONL by whole lines."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from octavo.errors import DataError, StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of writing `path` into a StorageError in one line."""
    try:
        yield
    except OSError as error:
        advice = "; free some space and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StorageError(f"cannot write {path}: {error.strerror or error}{advice}") from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write the whole of `data`: `os.write` may take a part only."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def fsync_folder(path: Path) -> None:
    """Make the names in a folder (a rename in it) outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """What can be fetched or made again: $OCTAVO_CACHE, else octavo/ in $XDG_CACHE_HOME, else ~/.cache/octavo."""
    if chosen := os.environ.get("OCTAVO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file: the body fills the empty one that it is given, which then takes the place of `path`.

    Afterwards, and after a crash at any moment, `path` is the old file or the new one, whole. If the body fails, it is
    the old one. Raises StorageError (disk full, no permission).
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            try:
                os.fchmod(descriptor, 0o644)  # mkstemp makes files that only their owner may read
                yield Path(name)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        fsync_folder(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the file by one of this content, as `replacing` does.

    Raises StorageError (disk full, no permission); the old file is then intact.
    """
    with replacing(path) as unfinished, open(unfinished, "wb", buffering=0) as file:
        write_all(file.fileno(), content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value atomically, indented for people; NaN and infinity become null."""
    write_atomic(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON value. Raises DataError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON file, got: {' '.join(str(error).split())}") from error


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows in one write; NaN and infinity become null. Raises StorageError, the file then being as before."""
    text = "".join(json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    if not text:
        return
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            whole = _whole_lines_bytes(descriptor)
            try:
                os.ftruncate(descriptor, whole)  # else the first new row would join a torn one
                write_all(descriptor, text.encode())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, whole)
                raise
        finally:
            os.close(descriptor)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that a crash has torn is dropped, a missing file is empty.

    Raises DataError with file and line for a bad line anywhere else.
    """
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    del torn  # what follows the last newline: nothing, or the torn line
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: expected one JSON object a line, got {line[:60]!r}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {line[:60]!r}")
        rows.append(row)
    return rows


def truncate_after_step(path: Path, step: int) -> None:
    """Drop rows whose `step` is larger (and a torn last line): they are of steps that will be done again."""
    if not path.exists():
        return
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("step"), int):
            raise DataError(f"{path}:{number}: the row has no step, so the run cannot be resumed; delete the file")
    kept = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows if row["step"] <= step]
    write_atomic(path, "".join(kept))


def _whole_lines_bytes(descriptor: int) -> int:
    """Size of the file up to the end of its last whole line."""
    size = os.fstat(descriptor).st_size
    step = 1 << 16
    end = size
    while end > 0:
        start = max(0, end - step)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in value]
    return value
