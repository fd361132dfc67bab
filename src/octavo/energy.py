"""Energy that a run takes: read off the processor's own counters where one may, else estimated.

Counted are whole processors and their memory (Linux powercap, which Intel's and AMD's processors fill in), with what
other programs do meanwhile. The estimate is the processor time of this process and of those that it waited for, times
WATTS_PER_CORE. Neither knows of screens, disks and losses in the power supply, nor of graphics cards.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

WATTS_PER_CORE = 10.0
"""Of a core at work, with its part of caches and memory: between a notebook's 5 and a server's 15."""

Source = Literal["measured", "estimated"]

_POWERCAP = Path("/sys/class/powercap")


@dataclass
class _Counter:
    """One domain's microjoules, which begin again at 0 beyond `most`."""

    path: Path
    most: int
    last: int = field(init=False)

    def __post_init__(self) -> None:
        self.last = _number(self.path)

    def advance(self) -> int:
        """Microjoules since the last call, if the counter went round once at most."""
        now = _number(self.path)
        passed, self.last = now - self.last, now
        return passed if passed >= 0 else passed + self.most + 1


class EnergyMeter:
    """Joules since it was made. To be read more often than a counter goes round: within minutes."""

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self._counters = _counters(powercap)
        self._cpu_seconds = _cpu_seconds()
        self._measured = 0.0
        self.source: Source = "measured" if self._counters else "estimated"

    def joules(self) -> float:
        """So far."""
        if self._counters:
            try:
                self._measured += sum([counter.advance() for counter in self._counters]) / 1e6
                return self._measured
            except (OSError, ValueError):  # taken away while we ran: all of it is estimated then
                self._counters, self.source = [], "estimated"
        return WATTS_PER_CORE * (_cpu_seconds() - self._cpu_seconds)


def _counters(powercap: Path) -> list[_Counter]:
    """Of whole processors (intel-rapl:0) and of their memory (the domain "dram" below). None unless all are readable:
    half of a sum is no measurement."""
    try:
        domains = [path for path in sorted(powercap.glob("intel-rapl:*")) if _counts(path)]
        return [_Counter(path / "energy_uj", _number(path / "max_energy_range_uj")) for path in domains]
    except (OSError, ValueError):
        return []


def _counts(domain: Path) -> bool:
    whole = domain.name.count(":") == 1
    name = (domain / "name").read_text().strip()
    return (whole and name.startswith("package")) or (not whole and name == "dram")


def _number(path: Path) -> int:
    return int(path.read_text())


def _cpu_seconds() -> float:
    return sum(os.times()[:4])
