"""Bounded reading of files that grow, are half-written, damaged or huge."""

import itertools
import json
import os

import pytest

from made_run import write_lines
from octavo.errors import DataError
from octavo.serve.runs import files
from octavo.serve.runs.files import Memory, curve_rows, last_rows, whole_file


def rows(count: int) -> list[dict]:
    return [{"step": step, "loss": 1 / step} for step in range(1, count + 1)]


def test_a_small_file_is_read_whole_without_its_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, rows(3), torn='{"step": 4, "lo')
    assert curve_rows(path) == files.Rows(tuple(rows(3)))
    assert curve_rows(tmp_path / "none.jsonl") == files.Rows(())


def test_damaged_lines_are_passed_over_and_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\nnonsense\n\n[1]\n\xff\xfe\n{"a": ' + b"[" * 5000 + b"\n" + b'{"step": 2}\n')
    read = curve_rows(path)
    assert [row["step"] for row in read.rows] == [1, 2]
    assert read.damaged == 4


def test_of_a_huge_file_pieces_from_all_over_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(files, "PIECES", 8)
    monkeypatch.setattr(files, "PIECE_BYTES", 200)
    monkeypatch.setattr(files, "END_BYTES", 400)
    path = tmp_path / "metrics.jsonl"
    write_lines(path, rows(5000))
    read = curve_rows(path)
    steps = [row["step"] for row in read.rows]
    assert not read.whole
    assert read.damaged == 0
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-1] == 5000
    assert max(after - before for before, after in itertools.pairwise(steps)) < 1.2 * 5000 / 8
    assert len(steps) * 35 < 8 * 200 + 400 + 35 * 8


def test_a_line_without_end_costs_no_more_than_its_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE_BYTES", 1000)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x" * 3_000_000)
    assert curve_rows(path).rows == ()
    assert last_rows(path, 5).rows == ()


def test_one_pages_backwards_through_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "END_BYTES", 500)
    path = tmp_path / "rollouts.jsonl"
    write_lines(path, rows(100), torn='{"step"')
    seen: list[int] = []
    before, pages = None, 0
    while True:
        read = last_rows(path, 7, before)
        seen = [row["step"] for row in read.rows] + seen
        pages += 1
        if read.whole:
            break
        before = read.start
    assert seen == list(range(1, 101))
    assert pages == 15


@pytest.mark.parametrize("before", [0, 3, 10**18])
def test_any_number_may_be_asked_for(tmp_path, before):
    path = tmp_path / "rollouts.jsonl"
    write_lines(path, rows(2))
    assert len(last_rows(path, 5, before).rows) == (2 if before > 10 else 0)


def test_a_pipe_or_a_folder_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="expected a file"):
            curve_rows(path)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"0123456789")
    assert whole_file(path, 10) == b"0123456789"
    with pytest.raises(DataError, match="10 bytes are more than the 9 that are read"):
        whole_file(path, 9)
    assert whole_file(tmp_path / "none", 9) is None


def test_what_was_made_of_a_file_is_kept_until_it_changes(tmp_path):
    made = []

    def make(path):
        made.append(path.name)
        return json.loads(path.read_text())

    memory = Memory(most=2)
    for name in "abc":
        (tmp_path / name).write_text("1")
    assert [memory.made(tmp_path / "a", make) for _ in range(3)] == [1, 1, 1]
    assert made == ["a"]
    (tmp_path / "a").write_text("22")
    assert memory.made(tmp_path / "a", make) == 22
    memory.made(tmp_path / "b", make)
    memory.made(tmp_path / "a", make)
    memory.made(tmp_path / "c", make)  # b, the longest unused, goes
    memory.made(tmp_path / "a", make)
    assert made == ["a", "a", "b", "c"]
    memory.made(tmp_path / "b", make)
    assert made[-1] == "b"


def test_a_damaged_file_is_not_read_again_either(tmp_path):
    tried = []

    def make(path):
        tried.append(path)
        raise DataError("damaged")

    memory = Memory()
    (tmp_path / "a").write_text("1")
    for _ in range(3):
        with pytest.raises(DataError, match="damaged"):
            memory.made(tmp_path / "a", make)
    assert len(tried) == 1
