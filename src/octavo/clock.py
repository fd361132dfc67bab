"""Seconds, memory and energy of a stage, over all the pieces in which it was run.

The seconds so far stand in `<stage>/clock.json`, rewritten at most once a second, so that a killed piece is counted but
for its last moments.
"""

import time
from pathlib import Path
from typing import Any

from octavo.disclosure import PeakMemory
from octavo.energy import EnergyMeter, Source
from octavo.errors import OctavoError
from octavo.storage import read_json, write_json

_SAVE_EVERY_SECONDS = 1.0


class Clock:
    """Runs from its making. `tick` as often as one likes."""

    def __init__(self, path: Path):
        self._path = path
        self.memory = PeakMemory()
        self._energy = EnergyMeter()
        saved = _saved(path)
        self._seconds_before = float(saved.get("seconds", 0.0))
        self._peak_before = int(saved.get("peak_memory_bytes", 0))
        self._joules_before = float(saved.get("joules", 0.0))
        self._all_measured = saved.get("joules_source", "measured") == "measured"
        self._start = time.perf_counter()
        self._saved_at = self._start

    @property
    def seconds(self) -> float:
        """Wall clock of the stage, earlier pieces included."""
        return self._seconds_before + time.perf_counter() - self._start

    @property
    def peak_memory_bytes(self) -> int:
        """Peak of resident memory, earlier pieces included."""
        return max(self._peak_before, self.memory.bytes())

    @property
    def joules(self) -> float:
        """Energy of the stage, earlier pieces included."""
        return self._joules_before + self._energy.joules()

    @property
    def joules_source(self) -> Source:
        """Measured, if all pieces were."""
        return self._energy.source if self._all_measured else "estimated"

    def tick(self) -> None:
        if time.perf_counter() - self._saved_at >= _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        self._saved_at = time.perf_counter()
        spent = {
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "joules": self.joules,
            "joules_source": self.joules_source,
        }
        write_json(self._path, spent)


def _saved(path: Path) -> dict[str, Any]:
    try:
        saved = read_json(path) if path.exists() else {}
    except OctavoError:
        saved = {}  # a damaged clock costs some seconds in the ledger, never the stage
    return saved if isinstance(saved, dict) else {}
