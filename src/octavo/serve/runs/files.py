"""Reads files of a run that somebody else is writing: half-written, damaged or huge ones cost a bounded time.

JSONL files grow without limit, so only a part of a large one is read: pieces from all over it, for curves, or a piece
that ends at a given place, for rows to read. A row that is no JSON object is passed over and counted.
"""

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from octavo.errors import DataError, OctavoError

WHOLE_BYTES = 2 << 20
"""A JSONL file up to this size is read whole."""
PIECES, PIECE_BYTES = 64, 16 << 10
"""A larger one in so many pieces of this size, evenly spread, and its end."""
END_BYTES = 256 << 10
MOST_JSON_BYTES, MOST_YAML_BYTES = 16 << 20, 256 << 10
"""A JSON or YAML file that is larger is not read."""

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows of a JSONL file in their order."""

    rows: tuple[Row, ...]
    damaged: int = 0
    """Lines that were passed over, of those that were read."""
    whole: bool = True
    """Whether all of the file was read."""
    start: int = 0
    """Of `last_rows`: where the first row begins, bytes; there end the rows before."""


def curve_rows(path: Path) -> Rows:
    """Rows from all over the file: all of them where it is small. A missing file is empty. Raises DataError."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return Rows(())
        size = os.fstat(descriptor).st_size
        if size <= WHOLE_BYTES:
            rows, damaged, _ = _parse(_read(descriptor, 0, size), begins=True)
            return Rows(tuple(rows), damaged)
        found: list[Row] = []
        damaged = 0
        body = size - END_BYTES
        for number in range(PIECES):
            at = body * number // PIECES
            rows, bad, _ = _parse(_read(descriptor, at, PIECE_BYTES), begins=at == 0)
            found += rows
            damaged += bad
        rows, bad, _ = _parse(_read(descriptor, body, END_BYTES), begins=False)
        return Rows((*found, *rows), damaged + bad, whole=False)


def last_rows(path: Path, count: int, before: int | None = None) -> Rows:
    """The last `count` rows that end at byte `before` or sooner (None: the end). Raises DataError.

    Rows that begin more than 256 KiB before that are not reached.
    """
    with _opened(path) as descriptor:
        if descriptor is None:
            return Rows(())
        size = os.fstat(descriptor).st_size
        end = size if before is None else max(0, min(before, size))
        at = max(0, end - END_BYTES)
        rows, damaged, starts = _parse(_read(descriptor, at, end - at), begins=at == 0)
        shown = rows[-count:]
        start = at + starts[-len(shown)] if shown else at
        return Rows(tuple(shown), damaged, whole=start == 0, start=start)


def whole_file(path: Path, most_bytes: int) -> bytes | None:
    """A small file; None where there is none. Raises DataError where it is too large or cannot be read."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return None
        size = os.fstat(descriptor).st_size
        if size > most_bytes:
            raise DataError(f"{path}: {size:,} bytes are more than the {most_bytes:,} that are read for a page")
        return _read(descriptor, 0, size)


class Memory:
    """What was made of files, until they change: a page that looks every few seconds reads only what is new.

    `most` results are kept, those used last. A file is known by its place, identity, size and time of change. Many
    threads may ask.
    """

    def __init__(self, most: int = 2000):
        self._most = most
        self._made: dict[tuple[Callable[[Path], Any], Path], tuple[tuple[int, ...], Any]] = {}
        self._turn = threading.Lock()

    def made(self, path: Path, make: Callable[[Path], T]) -> T:
        """`make(path)`, or what it returned, or raised as an OctavoError, last time."""
        stamp = _stamp(path)
        with self._turn:
            known = self._made.pop((make, path), None)
        result = known[1] if known and known[0] == stamp else _result(make, path)
        with self._turn:
            self._made[make, path] = (stamp, result)
            while len(self._made) > self._most:
                del self._made[next(iter(self._made))]
        if isinstance(result, OctavoError):
            raise result
        return cast(T, result)


def _result(make: Callable[[Path], T], path: Path) -> T | OctavoError:
    """A damaged file may take long to read: it is not read again either, until it changes."""
    try:
        return make(path)
    except OctavoError as error:
        return error.with_traceback(None)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of a regular file; None where there is none. A pipe or a device is no file of a run."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: expected a file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, at: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, at)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error


def _parse(piece: bytes, begins: bool) -> tuple[list[Row], int, list[int]]:
    """Rows of a piece of a file, damaged lines, and where in the piece each row begins.

    What stands before the first newline is the rest of a line unless the piece `begins` a file; what stands after the
    last is not finished.
    """
    rows: list[Row] = []
    starts: list[int] = []
    damaged = 0
    at = 0 if begins else piece.find(b"\n") + 1
    if not begins and at == 0:
        return rows, damaged, starts
    while (end := piece.find(b"\n", at)) >= 0:
        try:
            row = json.loads(piece[at:end])
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
            starts.append(at)
        elif end > at:
            damaged += 1
        at = end + 1
    return rows, damaged, starts
