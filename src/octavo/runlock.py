"""Who writes a run: one process at a time, and which one it is.

The lock is the system's (flock), so it is let go when the process dies, however it dies. The lock file stays, and says
which process holds or held it, so that another one can find it, ask it to stop, and start the run again where it ran.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from octavo.errors import ConfigError
from octavo.storage import storage_errors, write_all

_MOST_BYTES = 8192
"""Of a lock file that is read: more is none of ours."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the run whose lock file is `path`, and write into it who holds it.

    Raises ConfigError where another process holds it, StorageError where the file cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{path.parent}: another process is writing this run; wait for it, stop it, or choose another --out"
            ) from None
        # Where it runs is written relative to the run: a run folder that is given away tells nothing of its owner.
        note = {"pid": os.getpid(), "folder": os.path.relpath(os.getcwd(), path.parent)}
        with storage_errors(path):
            os.ftruncate(descriptor, 0)
            write_all(descriptor, json.dumps(note).encode())
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> psutil.Process | None:
    """The process of this machine that holds the run whose lock file is `path`; None where there is none.

    A number in a file proves nothing (it may be an old one, or from another machine): the process must have this very
    file open.
    """
    pid = _note(path).get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        return None
    try:
        process = psutil.Process(pid)
        is_open = any(os.path.samefile(file.path, path) for file in process.open_files())
    except (psutil.Error, OSError, OverflowError):
        return None
    return process if is_open else None


def started_in(path: Path) -> Path | None:
    """The folder in which the run was last started, as its lock file tells; None where that is gone or unknown."""
    folder = _note(path).get("folder")
    if not isinstance(folder, str) or "\0" in folder:
        return None
    found = Path(os.path.normpath(path.parent.resolve() / folder))
    return found if found.is_dir() else None


def _note(path: Path) -> dict[str, object]:
    """What the lock file says; nothing where it is missing, damaged or from before it said anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            note = json.loads(os.read(descriptor, _MOST_BYTES))
        finally:
            os.close(descriptor)
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
