"""Disclosure: hashes by sha256sum's rule, versions, a machine that names nobody, a peak that is the stage's own."""

import getpass
import hashlib
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy
import pytest

from octavo import disclosure
from octavo.disclosure import (
    PeakMemory,
    machine_description,
    now,
    package_versions,
    sha256_of,
    sha256_of_each,
)
from octavo.errors import DataError


def test_a_file_has_the_published_hash_of_abc(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_is_hashed_as_the_listing_of_sha256sum(tmp_path):
    for name, content in [("b", b"2"), ("a/x", b"1"), (".hidden", b"3")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in [(".hidden", b"3"), ("a/x", b"1"), ("b", b"2")]
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert sha256_of(tmp_path) == expected
    (tmp_path / "b").rename(tmp_path / "c")
    assert sha256_of(tmp_path) != expected
    assert sha256_of_each({"data": tmp_path / "c"}) == {"data": hashlib.sha256(b"2").hexdigest()}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone: cannot be read: No such file or directory"):
        sha256_of(tmp_path / "gone")


def test_versions_are_of_what_octavo_itself_uses():
    versions = package_versions()
    assert versions["octavo"] == version("octavo")
    assert versions["torch"] == version("torch")
    assert versions["pydantic"] == version("pydantic")
    assert "pytest" not in versions


def test_the_machine_is_described_and_nobody_is_named():
    machine = machine_description()
    assert machine["logical_cores"] >= machine["physical_cores"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert machine["python"] == platform.python_version()
    assert machine["cpu"]
    words = json.dumps(machine).replace('"', " ").split()
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert str(Path.home()) not in json.dumps(machine)


def test_threads_are_known_once_torch_is_loaded():
    script = "import octavo.disclosure as d, sys; print(d.machine_description()['threads'], 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "0 False\n"
    import torch

    assert machine_description()["threads"] == torch.get_num_threads()


def test_the_machine_says_with_which_kernels_it_computed(monkeypatch):
    from octavo import native

    status = native.status()
    assert machine_description()["kernels"] == (status.why if status.used else "not used")
    monkeypatch.setenv(native.SWITCH, "0")
    assert machine_description()["kernels"] == "not used"


def test_the_time_is_utc():
    moment = datetime.fromisoformat(now())
    assert moment.tzinfo == UTC
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)


def test_the_peak_of_an_earlier_stage_is_forgotten():
    megabytes = 2**20
    first = PeakMemory()
    before = first.bytes()
    block = numpy.ones(200 * megabytes, dtype=numpy.uint8)
    assert int(block[-1]) == 1
    del block
    assert first.bytes() > before + 150 * megabytes or first.scope == "process"
    second = PeakMemory()
    if second.scope == "process":
        pytest.skip("this system keeps one peak for the whole process")
    assert second.bytes() < first.bytes() + 50 * megabytes
    assert second.bytes() < before + 100 * megabytes


def test_where_the_system_forbids_it_the_peak_is_said_to_be_the_process_s(monkeypatch):
    monkeypatch.setattr(disclosure, "_forget_peak", lambda: False)
    peak = PeakMemory()
    assert peak.scope == "process"
    assert peak.bytes() > 10 * 2**20
