"""MODEL on the command line: paths first, then names."""

import pytest

from octavo.errors import CheckpointError
from octavo.models import find_model
from octavo.pull.cache import Cache
from octavo.pull.catalogue import look_up


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def put(name: str, *files: str):
    place = Cache.standard().place(look_up(name)[0])
    place.mkdir(parents=True)
    for file in files:
        (place / file).write_bytes(b"{}")
    return place


def test_names_are_found_in_the_cache():
    folder = put("qwen3-4b", "config.json", "model.safetensors")
    assert find_model("qwen3-4b") == find_model("Qwen/Qwen3-4B") == folder
    assert find_model("smollm2-135m" if put("smollm2-135m", "a.gguf") else "").name == "a.gguf"
    put("o/m:q.gguf", "q.gguf")
    assert find_model("o/m:q.gguf").name == "q.gguf"


def test_a_path_goes_before_a_name(tmp_path):
    put("qwen3-4b", "config.json")
    (tmp_path / "here/qwen3-4b/model").mkdir(parents=True)
    (tmp_path / "here/qwen3-4b/model/config.json").write_text("{}")
    assert str(find_model("qwen3-4b")) == "qwen3-4b/model"


def test_files_are_what_they_are(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert find_model(tmp_path / "x.gguf") == find_model(tmp_path) == tmp_path / "x.gguf"
    (tmp_path / "y.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="holds no model"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3-4b", "^qwen3-4b is not fetched yet: octavo pull qwen3-4b$"),
        ("Qwen/Qwen3-4B", "^Qwen/Qwen3-4B is not fetched yet: octavo pull Qwen/Qwen3-4B$"),
        ("owner/name", r"no such folder, and not in the cache \(if it is a model of the hub: octavo pull owner/name\)"),
        ("runs/r1-mini/final", "runs/r1-mini/final: no such folder or file"),
        ("qwen3-4", r"no such folder or file, and no model is named 'qwen3-4' \(did you mean qwen3-4b\?\)"),
    ],
)
def test_what_is_not_there_says_how_to_get_it(name, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        find_model(name)
    assert len(str(caught.value).splitlines()) == 1
