"""What a stage's manifest and ledger say of files, software, machine and memory.

Nothing here identifies a person or a computer: no host name, no user name, no absolute path.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from octavo.errors import DataError


def sha256_of(path: Path) -> str:
    """Hash of a file, or of a folder: of the lines `<sha256>  <relative path>` of its files, sorted by path.

    Hidden files count; empty folders do not. Read in pieces. Raises DataError where it is missing or unreadable.
    """
    try:
        if not path.is_dir():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{sha256_of(file)}  {name}\n" for name, file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def sha256_of_each(paths: Mapping[str, Path]) -> dict[str, str]:
    """Name -> hash, as a manifest lists inputs and outputs."""
    return {name: sha256_of(path) for name, path in paths.items()}


def package_versions() -> dict[str, str]:
    """Version of Octavo and of each installed package that it names as a dependency of its own (not of its tests)."""
    required = importlib.metadata.requires("octavo") or []
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    versions = {}
    for name in sorted({"octavo", *names}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a source checkout with less than everything installed
            continue
    return versions


def machine_description() -> dict[str, str | int | float]:
    """The machine as far as results and costs depend on it."""
    torch = sys.modules.get("torch")  # if it is not loaded, nothing was computed
    return {
        "kernels": _kernels() if torch else "not used",
        "cpu": _cpu_name(),
        "physical_cores": psutil.cpu_count(logical=False) or 0,
        "logical_cores": psutil.cpu_count(logical=True) or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "threads": torch.get_num_threads() if torch else 0,
    }


def _kernels() -> str:
    """What the native kernels were made with: they round as torch does not. Why there are none may name a path."""
    from octavo import native

    status = native.status()
    return status.why if status.used else "not used"


def now() -> str:
    """This moment, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class PeakMemory:
    """Most memory that this process held at once (resident set, bytes) since the object was made.

    Where the system lets a process forget its earlier peak (Linux), `scope` is "stage"; elsewhere the peak is the one
    since the process began, and `scope` is "process". One at a time: a new object restarts the peak of an older one.
    """

    def __init__(self) -> None:
        self.scope: Literal["stage", "process"] = "stage" if _forget_peak() else "process"

    def bytes(self) -> int:
        if self.scope == "stage":
            return _status_bytes("VmHWM")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes


def _forget_peak() -> bool:
    """Set the peak of the resident set back to its present size (proc(5), clear_refs). False where not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmHWM") > 0
    except OSError:
        return False


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status; 0 where the kernel does not give it."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
