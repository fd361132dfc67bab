"""Processes that run foreign code: ended with all that they started, and never left behind."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Have this process killed as soon as the thread that started it ends, also by SIGKILL. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that `end` finds them. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def limit_memory(memory_bytes: int) -> None:
    """Have allocations fail beyond so much address space, where the system can."""
    with suppress(ValueError, OSError):  # macOS cannot
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def end(process: subprocess.Popen[bytes], descendants: bool = True) -> None:
    """Kill a process that leads its own session, and with `descendants` also those that have left the session."""
    found = _descendants(process.pid) if descendants and process.poll() is None else []
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    for pid in found:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written finds no reader
                pipe.close()


def how_it_ended(returncode: int) -> str:
    """In words: exited with 3, was killed by SIGSEGV."""
    if returncode >= 0:
        return f"exited with {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:  # real-time signals have no names
        return f"was killed by signal {-returncode}"


def _descendants(pid: int) -> list[int]:
    """Those alive now, stopped first so that none starts another one meanwhile."""
    import psutil

    found: dict[int, None] = {}
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        with suppress(PermissionError):
            os.kill(pid, signal.SIGSTOP)
        for _ in range(10):
            new = [child.pid for child in parent.children(recursive=True) if child.pid not in found]
            if not new:
                break
            for child in new:
                found[child] = None
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGSTOP)
    return list(found)
