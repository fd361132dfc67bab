"""Seconds and memory of a stage, over all the pieces in which it was run.

The seconds so far stand in `<stage>/clock.json`, rewritten at most once a second, so that a killed piece is counted but
for its last moments.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Literal

from octavo.errors import OctavoError
from octavo.storage import read_json, write_json

_SAVE_EVERY_SECONDS = 1.0


class Clock:
    """Runs from its making. `tick` as often as one likes."""

    def __init__(self, path: Path):
        self._path = path
        saved = _saved(path)
        self._seconds_before = float(saved.get("seconds", 0.0))
        self._peak_before = int(saved.get("peak_memory_bytes", 0))
        self._scope: Literal["stage", "process"] = "stage" if _forget_peak() else "process"
        self._start = time.perf_counter()
        self._saved_at = self._start

    @property
    def seconds(self) -> float:
        """Wall clock of the stage, earlier pieces included."""
        return self._seconds_before + time.perf_counter() - self._start

    @property
    def peak_memory_bytes(self) -> int:
        """Peak of resident memory, earlier pieces included."""
        return max(self._peak_before, _peak_bytes())

    @property
    def peak_memory_scope(self) -> Literal["stage", "process"]:
        """Whether the peak is the stage's own, or the process's since it began (where the system cannot forget)."""
        return self._scope

    def tick(self) -> None:
        if time.perf_counter() - self._saved_at >= _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        self._saved_at = time.perf_counter()
        write_json(self._path, {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes})


def _saved(path: Path) -> dict[str, float]:
    try:
        saved = read_json(path) if path.exists() else {}
    except OctavoError:
        saved = {}  # a damaged clock costs some seconds in the ledger, never the stage
    return saved if isinstance(saved, dict) else {}


def _forget_peak() -> bool:
    """Let the system's record of the peak begin anew (Linux, proc(5): clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kilobytes
