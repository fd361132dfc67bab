"""Who holds a run: found from another process, and never taken from a file alone."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from octavo import runlock
from octavo.runlock import hold, holder, started_in

HOLDER = """
import sys, time
from pathlib import Path
from octavo.runlock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(path, cwd=None):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_that_holds_a_run_is_found_and_forgotten_when_it_dies(tmp_path):
    lock = tmp_path / "runs" / "a" / ".lock"
    assert holder(lock) is None
    with another_process(lock, cwd=tmp_path) as process:
        assert holder(lock).pid == process.pid
        assert started_in(lock) == tmp_path
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder(lock) is None
        assert started_in(lock) == tmp_path  # to start it again there


def test_the_lock_file_tells_nothing_of_its_owner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hold(tmp_path / "runs" / "a" / ".lock"):
        note = json.loads((tmp_path / "runs" / "a" / ".lock").read_text())
    assert note == {"pid": os.getpid(), "folder": "../.."}


def test_a_living_process_that_does_not_hold_the_run_is_not_its_holder(tmp_path):
    """As after a copy, or when a number was given anew."""
    lock = tmp_path / ".lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "folder": "."}))
    assert holder(lock) is None
    with open(lock):
        assert holder(lock).pid == os.getpid()


DAMAGED = [b"", b"{", b"[]", b"[" * 5000, b'{"pid": "1"}', b'{"pid": true}', b'{"pid": -1}', b'{"pid": 1e400}']
DAMAGED += [b'{"pid": 99999999999999999999999}', b'{"folder": 3}', b'{"folder": "a\\u0000"}', b"\xff\xfe", b"7"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_lock_file_names_nobody(tmp_path, content):
    lock = tmp_path / ".lock"
    lock.write_bytes(content)
    assert holder(lock) is None
    assert started_in(lock) is None


def test_a_pipe_in_the_place_of_a_lock_file_stops_nobody(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    assert holder(tmp_path / ".lock") is None


def test_a_folder_that_is_gone_is_not_given(tmp_path):
    lock = tmp_path / ".lock"
    lock.write_text(json.dumps({"pid": 1, "folder": "../nowhere"}))
    assert runlock.started_in(lock) is None
