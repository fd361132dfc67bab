import os

import pytest

from octavo.energy import WATTS_PER_CORE, EnergyMeter


def write(powercap, domain, name, joules, most=1_000_000_000):
    folder = powercap / domain
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{joules * 1_000_000}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")


@pytest.fixture
def powercap(tmp_path):
    """Two processors; the cores of one are a part of it, and its memory is not."""
    for domain, name, joules in (
        ("intel-rapl:0", "package-0", 100),
        ("intel-rapl:0:0", "core", 50),
        ("intel-rapl:0:1", "dram", 10),
        ("intel-rapl:1", "package-1", 200),
        ("intel-rapl:2", "psys", 900),
    ):
        write(tmp_path, domain, name, joules)
    return tmp_path


def test_processors_and_memory_are_added_and_nothing_twice(powercap):
    meter = EnergyMeter(powercap)
    assert meter.source == "measured"
    assert meter.joules() == 0
    write(powercap, "intel-rapl:0", "package-0", 103)
    write(powercap, "intel-rapl:0:0", "core", 52)
    write(powercap, "intel-rapl:0:1", "dram", 11)
    write(powercap, "intel-rapl:1", "package-1", 205)
    assert meter.joules() == pytest.approx(3 + 1 + 5)
    write(powercap, "intel-rapl:1", "package-1", 206)
    assert meter.joules() == pytest.approx(10)


def test_a_counter_that_begins_again(powercap):
    write(powercap, "intel-rapl:0", "package-0", 990)
    meter = EnergyMeter(powercap)
    write(powercap, "intel-rapl:0", "package-0", 4)
    assert meter.joules() == pytest.approx(14, abs=1e-3)


@pytest.mark.parametrize("damage", ["nothing there", "no number", "no permission"])
def test_without_counters_it_is_estimated_from_processor_time(powercap, monkeypatch, damage):
    if damage == "nothing there":
        powercap = powercap / "none"
    elif damage == "no number":
        (powercap / "intel-rapl:1" / "energy_uj").write_text("")
    else:
        (powercap / "intel-rapl:1" / "energy_uj").unlink()
        (powercap / "intel-rapl:1" / "energy_uj").mkdir()
    times = [3.0, 1.0, 0.5, 0.5, 99.0]
    monkeypatch.setattr(os, "times", lambda: tuple(times))
    meter = EnergyMeter(powercap)
    assert meter.source == "estimated"
    assert meter.joules() == 0
    times[0] += 7
    assert meter.joules() == pytest.approx(7 * WATTS_PER_CORE)


def test_counters_that_go_away_leave_an_estimate_of_the_whole(powercap, monkeypatch):
    times = [0.0, 0.0, 0.0, 0.0, 0.0]
    monkeypatch.setattr(os, "times", lambda: tuple(times))
    meter = EnergyMeter(powercap)
    write(powercap, "intel-rapl:0", "package-0", 150)
    assert meter.joules() == pytest.approx(50)
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    times[0] = 2.0
    assert meter.joules() == pytest.approx(2 * WATTS_PER_CORE)
    assert meter.source == "estimated"
