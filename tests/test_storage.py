"""Writes that a crash cannot tear: whole files, whole lines, and a full disk that loses nothing."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import DataError, StorageError
from octavo.storage import (
    append_jsonl,
    read_json,
    read_jsonl,
    replacing,
    truncate_after_step,
    write_atomic,
    write_json,
)


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_written_whole_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "één\n")
    assert path.read_bytes() == "één\n".encode()
    write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_names_the_path(tmp_path, monkeypatch, broken):
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full_disk)
        with pytest.raises(StorageError) as caught:
            write_atomic(path, "new")
    assert str(caught.value) == f"cannot write {path}: No space left on device; free some space and run again"
    assert caught.value.exit_code == 3
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_filled_piece_by_piece(tmp_path):
    """It takes its place when the body is done; a body that fails leaves the old one, and nothing else."""
    path = tmp_path / "x.bin"
    with replacing(path) as unfinished:
        for piece in (b"one", b"two"):
            with open(unfinished, "ab") as file:
                file.write(piece)
        assert not path.exists()
    assert path.read_bytes() == b"onetwo"

    def fail():
        with replacing(path) as unfinished:
            unfinished.write_bytes(b"three")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_a_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/x: (Not a directory|File exists)"):
        write_atomic(tmp_path / "file" / "x", "1")
    with pytest.raises(StorageError, match=r"cannot write .*file/x"):
        append_jsonl(tmp_path / "file" / "x", [{"a": 1}])


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": [float("nan"), 1.5, (float("inf"),)], "é": "é"})
    assert read_json(path) == {"a": [None, 1.5, [None]], "é": "é"}
    append_jsonl(path.with_suffix(".jsonl"), [{"loss": float("-inf"), "step": 1}])
    assert path.with_suffix(".jsonl").read_text() == '{"loss": null, "step": 1}\n'


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_json_file_that_cannot_be_read_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*x\.json: expected a JSON file, got: [^\n]+$"):
        read_json(path)


ROWS = st.lists(
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False))
)


@given(first=ROWS, second=ROWS)
def test_rows_read_back_in_order(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    append_jsonl(path, first)
    append_jsonl(path, second)
    assert read_jsonl(path) == first + second


@given(cut=st.integers(min_value=0))
def test_cut_anywhere_only_whole_rows_are_read_and_the_next_row_is_whole(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    rows = [{"step": step, "text": "é\u2028" * step} for step in range(5)]
    append_jsonl(path, rows)
    data = path.read_bytes()
    kept = data[: cut % (len(data) + 1)]
    path.write_bytes(kept)
    whole = rows[: kept.count(b"\n")]
    assert read_jsonl(path) == whole
    append_jsonl(path, [{"step": 9}])
    assert read_jsonl(path) == [*whole, {"step": 9}]


def test_a_torn_line_longer_than_one_piece_is_cut_off(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"step": 1}\n' + b"x" * 200_000)
    append_jsonl(path, [{"step": 2}])
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(b"x" * 200_000)
    append_jsonl(path, [{"step": 2}])
    assert path.read_bytes() == b'{"step": 2}\n'


@pytest.mark.parametrize("line", ["{not json}", "[1]", "", '{"torn": '])
def test_a_bad_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: expected (one JSON object a line|a JSON object), got"):
        read_jsonl(path)


def test_one_append_is_one_write_and_nothing_is_written_for_no_rows(tmp_path, monkeypatch):
    sizes, real = [], os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: sizes.append(len(data)) or real(descriptor, data))
    append_jsonl(tmp_path / "x.jsonl", ({"step": step} for step in range(3)))
    assert sizes == [len('{"step": 0}\n') * 3]
    append_jsonl(tmp_path / "y.jsonl", [])
    assert not (tmp_path / "y.jsonl").exists()


def test_a_disk_that_fills_up_inside_an_append_leaves_the_rows_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    append_jsonl(path, [{"step": 1}])
    before, real, calls = path.read_bytes(), os.write, []

    def half_then_full(descriptor, data):
        calls.append(1)
        return real(descriptor, bytes(data)[:5]) if len(calls) == 1 else full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_then_full)
        with pytest.raises(StorageError, match=r"cannot write .*x\.jsonl: No space left on device"):
            append_jsonl(path, [{"step": 2}, {"step": 3}])
    assert path.read_bytes() == before


def test_a_resumed_run_drops_the_rows_of_lost_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate_after_step(path, 3)
    assert not path.exists()
    append_jsonl(path, [{"step": step, "part": part} for step in (1, 2, 3) for part in "ab"])
    with open(path, "ab") as file:
        file.write(b'{"step": 4, "pa')
    truncate_after_step(path, 2)
    assert read_jsonl(path) == [{"step": step, "part": part} for step in (1, 2) for part in "ab"]
    append_jsonl(path, [{"note": "no step"}])
    with pytest.raises(DataError, match=r"metrics\.jsonl:5: the row has no step"):
        truncate_after_step(path, 2)
