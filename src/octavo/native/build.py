"""Compiles the kernels with the system's C compiler, once for each source, compiler and processor, and loads them.

The library lies in the cache under a name that is the hash of all that decides what it is; it is written under another
name and renamed, so that processes that compile at the same time do no harm. It is linked without an OpenMP of its own:
it takes the one that torch has brought into the process, so that one pool of threads serves both.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from octavo.errors import StorageError
from octavo.storage import cache_folder, replacing

_SOURCES = Path(__file__).parent / "kernels"
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fvisibility=hidden")
_LONGEST_SECONDS = 120


class NoKernelsError(Exception):
    """Kernels cannot be had here; the message says why, for `octavo doctor`."""


def build(source: str = "octavo.c") -> tuple[ctypes.CDLL, str]:
    """The library made from that file and its headers, loaded, and what it was made with. Raises NoKernelsError."""
    compiler = _compiler()
    version = _run([compiler, "--version"]).splitlines()[0]
    shared = _shared_threads(version)
    flags = [*_FLAGS, *(["-fopenmp"] if shared else [])]
    sources = b"".join(path.name.encode() + path.read_bytes() for path in sorted(_SOURCES.iterdir()))
    made_of = "\n".join((source, version, " ".join(flags), _processor(), torch.__version__))
    path = cache_folder() / "kernels" / f"{hashlib.sha256(sources + made_of.encode()).hexdigest()[:24]}.so"
    found = path.exists()
    if not found:
        _compile(compiler, flags, source, path)
    try:
        library = _load(path)
    except OSError as error:
        if not found:
            raise NoKernelsError(f"{path}: {error}") from error
        _compile(compiler, flags, source, path)  # what lay there was damaged
        library = _load(path)
    return library, version if shared else f"{version}, one thread: it cannot share torch's"


def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)


def _shared_threads(version: str) -> bool:
    """Whether torch has brought the OpenMP into the process that code of this compiler calls."""
    return hasattr(ctypes.CDLL(None), "__kmpc_fork_call" if "clang" in version else "GOMP_parallel")


def _compile(compiler: str, flags: list[str], source: str, path: Path) -> None:
    try:
        with replacing(path) as unfinished:
            objects = unfinished.with_suffix(".o")
            try:
                _run([compiler, *flags, "-c", "-o", str(objects), str(_SOURCES / source)])
                _run([compiler, "-shared", "-o", str(unfinished), str(objects), "-lm"])
            finally:
                objects.unlink(missing_ok=True)
    except StorageError as error:
        raise NoKernelsError(str(error)) from error


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if found := shutil.which(name):
            return found
    raise NoKernelsError("no C compiler (cc, gcc or clang) is installed")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelsError(f"{command[0]}: {error}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise NoKernelsError(f"{command[0]} failed: {last[0]}")
    return done.stdout


def _processor() -> str:
    """What -march=native looks at, so that a cache shared by different machines serves each its own."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        return "\n".join(
            sorted({line for line in lines if line.startswith(("flags", "model", "Features", "CPU part"))})
        )
    return f"{platform.machine()} {platform.processor()}"
