"""Which folders are runs, and what they are called."""

import pytest

from made_run import make_run
from octavo.errors import DataError
from octavo.serve.runs.listing import find_runs


def test_runs_of_every_depth_are_found_by_their_place(tmp_path):
    make_run(tmp_path / "b")
    make_run(tmp_path / "a")
    make_run(tmp_path / "r1-sweep" / "grpo" / "seed-0")
    make_run(tmp_path / "a" / "old" / "rl-12345678")  # inside a run: its own
    make_run(tmp_path / ".hidden")
    make_run(tmp_path / "1" / "2" / "3" / "4" / "too-deep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert list(find_runs(tmp_path)) == ["a", "b", "r1-sweep/grpo/seed-0"]
    assert find_runs(tmp_path)["a"].path == tmp_path / "a"


def test_a_root_may_be_a_run_itself(tmp_path):
    make_run(tmp_path / "a")
    assert list(find_runs(tmp_path / "a")) == ["a"]


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "again").symlink_to(tmp_path)
    make_run(tmp_path / "a")
    found = find_runs(tmp_path)
    assert "a" in found
    assert len(found) <= 5


def test_a_root_that_is_not_there_yet_has_no_runs(tmp_path):
    assert find_runs(tmp_path / "runs") == {}


def test_a_root_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: expected a folder with run folders"):
        find_runs(tmp_path / "file")


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    import os

    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    make_run(tmp_path / os.fsdecode(b"\xff"))
    assert list(find_runs(tmp_path)) == ["?"]
