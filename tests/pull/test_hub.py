"""Pulling from a hub that behaves, and from one that does not."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octavo.errors import ConfigError, PullError, StorageError, UnreachableError
from octavo.pull.cache import Cache
from octavo.pull.catalogue import Reference, catalogue
from octavo.pull.fetch import pull
from octavo.pull.meter import PlainMeter, SilentMeter

NAME = "owner/model"
COMMIT = "a" * 40


def fetch(cache: Cache, name: str = NAME, **options) -> Path:
    return pull(name, cache, SilentMeter(), **options).path


def nothing_whole(cache: Cache) -> bool:
    return not list(cache.path.glob("models/*"))


def parts(cache: Cache) -> list[Path]:
    return sorted(cache.path.glob("unfinished/**/*.part"))


def test_a_whole_folder_without_what_is_not_needed(hub, cache):
    content = hub.add(NAME, chat_template__jinja=b"t", pytorch_model__bin=b"pickle", onnx__onnx=b"x")
    path = fetch(cache)
    assert path == cache.path / "models" / "owner--model"
    wanted = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}
    assert {file.name for file in path.iterdir()} == wanted | {"source.json"}
    assert all((path / name).read_bytes() == content[name] for name in wanted)
    source = json.loads((path / "source.json").read_text())
    assert (source["source"], source["repository"], source["commit"]) == ("hub", NAME, COMMIT)
    assert source["sha256"]["model.safetensors"] == hashlib.sha256(content["model.safetensors"]).hexdigest()
    assert [seen.range for seen in hub.seen] == [None] * len(hub.seen)


def test_what_is_there_is_not_asked_for_again(hub, cache):
    hub.add(NAME)
    fetch(cache)
    asked = len(hub.seen)
    again = pull(NAME, cache, SilentMeter())
    assert (again.already_there, again.source, len(hub.seen)) == (True, "hub", asked)
    hub.add(NAME, tokenizer_config__json=b'{"new": 1}')
    assert (fetch(cache, force=True) / "tokenizer_config.json").read_bytes() == b'{"new": 1}'
    assert not list(cache.path.glob("unfinished/*/*"))


def test_requests_say_nothing_of_this_machine_and_keep_the_token_at_home(hub, cache, monkeypatch):
    hub.add("gated/model")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    fetch(cache, "gated/model")
    assert {seen.user_agent for seen in hub.seen} == {"octavo/0.1.0"}
    tokens = {seen.path.startswith("/cdn/"): seen.authorization for seen in hub.seen}
    assert tokens == {False: "Bearer hf_good", True: None}
    assert not [seen.path for seen in hub.seen if "harness" in seen.path]


def test_a_transfer_that_is_cut_goes_on_where_it_was(hub, cache):
    content = hub.add(NAME)
    hub.faults["model.safetensors"] = ["cut", "cut"]
    path = fetch(cache)
    assert (path / "model.safetensors").read_bytes() == content["model.safetensors"]
    assert hub.ranges("model.safetensors") == [None, "bytes=128000-", "bytes=192000-"]


def test_a_server_that_falls_silent_is_asked_again(hub, cache, monkeypatch):
    content = hub.add(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults["model.safetensors"] = ["hold"]
    assert (fetch(cache) / "model.safetensors").read_bytes() == content["model.safetensors"]
    assert hub.ranges("model.safetensors") == [None, "bytes=128000-"]


@pytest.mark.parametrize("fault", ["ignore the range", "refuse the range", "busy"])
def test_a_server_that_will_not_go_on_begins_anew(hub, cache, fault):
    content = hub.add(NAME)
    hub.faults["model.safetensors"] = ["cut", fault]
    assert (fetch(cache) / "model.safetensors").read_bytes() == content["model.safetensors"]


def test_a_transfer_that_never_gets_on_is_given_up_and_resumed_by_the_next_pull(hub, cache):
    content = hub.add(NAME)
    hub.faults["model.safetensors"] = ["cut", "busy", "busy"]
    with pytest.raises(UnreachableError, match="128,000 of 256,000 bytes of model"):
        fetch(cache)
    assert nothing_whole(cache)
    assert [part.stat().st_size for part in parts(cache)] == [128_000]
    before = len(hub.seen)
    assert (fetch(cache) / "model.safetensors").read_bytes() == content["model.safetensors"]
    # Small files had arrived and are not asked for again; of the large one, only what is missing.
    assert [seen.path.rpartition("/")[2] for seen in hub.seen[before:]] == ["main"] + 2 * ["model.safetensors"]
    assert hub.ranges("model.safetensors")[-1] == "bytes=128000-"


@pytest.mark.parametrize(("fault", "said"), [("alter", "its sha256 is"), ("lengthen", "more than the 256,000 bytes")])
def test_wrong_bytes_are_removed(hub, cache, fault, said):
    hub.add(NAME)
    hub.faults["model.safetensors"] = [fault]
    with pytest.raises(PullError, match=said) as caught:
        fetch(cache)
    assert "removed" in str(caught.value)
    assert nothing_whole(cache)
    assert parts(cache) == []
    assert fetch(cache).is_dir()


def test_wrong_bytes_of_a_small_file_are_removed(hub, cache):
    hub.add(NAME)
    hub.faults["tokenizer.json"] = ["alter"]
    with pytest.raises(PullError, match=r"tokenizer\.json: its git sha1 is"):
        fetch(cache)
    assert nothing_whole(cache)


def test_a_changed_part_does_not_pass(hub, cache):
    hub.add(NAME)
    hub.faults["model.safetensors"] = ["cut", "busy", "busy"]
    with pytest.raises(UnreachableError):
        fetch(cache)
    parts(cache)[0].write_bytes(b"\0" * 128_000)
    with pytest.raises(PullError, match="its sha256 is"):
        fetch(cache)
    assert fetch(cache).is_dir()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("owner/nothing", {}, "has no repository owner/nothing, or shows it to its owner only"),
        ("gated/model", {}, "wants its licence accepted: do so at .*/gated/model, then set HF_TOKEN"),
        (NAME, {"revision": "v9"}, "has no revision 'v9'"),
        ("owner/pickles", {}, "weights as pickles only .pytorch_model.bin., and opening a pickle can run any code"),
        ("owner/ggufs", {}, r"name one, as owner/name:file.gguf \(there are: a-Q4_0.gguf, a-Q8_0.gguf"),
        ("owner/ggufs:a-Q5.gguf", {}, r"has no file a-Q5.gguf \(there are: a-Q4_0.gguf"),
        ("owner/ggufs:b-00001-of-00002.gguf", {}, "is one part of several"),
        ("owner/strange", {}, "model_type 'perceptron' is not supported .*nothing but the config was fetched"),
        ("owner/untokenized", {}, "has no tokenizer.json"),
    ],
)
def test_what_cannot_be_fetched_says_what_to_do(hub, cache, name, options, said):
    hub.add(NAME)
    hub.add("gated/model")
    hub.repositories["owner/pickles"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    ggufs = ("a-Q4_0.gguf", "a-Q8_0.gguf", "b-00001-of-00002.gguf")
    hub.repositories["owner/ggufs"] = dict.fromkeys(ggufs, b"GGUF")
    hub.add("owner/strange", config__json=b'{"model_type": "perceptron"}')
    del hub.add("owner/untokenized")["tokenizer.json"]
    with pytest.raises(PullError, match=said) as caught:
        fetch(cache, name, **options)
    assert "\n" not in str(caught.value)
    assert nothing_whole(cache)
    assert hub.ranges("model.safetensors") == []


@pytest.mark.parametrize(("status", "said"), [("403", r"refuses owner/model \(status 403\)"), ("500", "is busy")])
def test_other_refusals(hub, cache, status, said):
    hub.faults["listing"] = [status]
    with pytest.raises(PullError, match=said):
        fetch(cache)


def test_one_gguf_file(hub, cache):
    hub.repositories["owner/ggufs"] = {"q/a-Q4_0.gguf": b"GGUF" * 1000, "a-Q8_0.gguf": b"x"}
    path = fetch(cache, "owner/ggufs:q/a-Q4_0.gguf", revision="v1")
    assert path == cache.path / "models" / "owner--ggufs@v1--q--a-Q4_0.gguf" / "a-Q4_0.gguf"
    assert path.read_bytes() == b"GGUF" * 1000
    assert cache.find(Reference("owner/ggufs", "v1", "q/a-Q4_0.gguf")) == path
    assert cache.find(Reference("owner/ggufs", file="q/a-Q4_0.gguf")) is None


def test_a_full_disk_is_said_before_the_transfer(hub, cache, monkeypatch):
    hub.add(NAME)
    monkeypatch.setattr("octavo.pull.cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match=r"0.3 MB are still to be fetched .* OCTAVO_CACHE"):
        fetch(cache)
    assert hub.ranges("model.safetensors") == []


def test_what_does_not_fit_into_memory_is_said_before_the_transfer(hub, cache, monkeypatch, capsys):
    hub.add(NAME)
    monkeypatch.setattr("octavo.pull.fetch.psutil.virtual_memory", lambda: type("Memory", (), {"total": 1000}))
    pull(NAME, cache, PlainMeter(sys.stdout))
    assert "this machine has 0.0 MB" in capsys.readouterr().out


def test_a_file_that_is_not_the_pinned_one_is_not_fetched(hub, cache):
    hub.add(catalogue()["smollm2-135m"].hub)
    with pytest.raises(PullError, match=r"model.safetensors: .* states the sha256 \w+, the catalogue 5af571cb\w+"):
        fetch(cache, "smollm2-135m", source="hub")
    assert hub.ranges("model.safetensors") == []


def test_nobody_there_says_how_to_bring_the_file(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"http://127.0.0.1:9 was not reached .*Connection refused") as caught:
        fetch(cache, "qwen3-0.6b")
    said = str(caught.value)
    assert "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main" in said
    assert "octavo pull qwen3-0.6b --file PATH" in said
    assert str(cache.path / "models" / "Qwen--Qwen3-0.6B") in said


def test_the_user_may_forbid_it(cache, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE is set"):
        fetch(cache)
    assert hub.seen == []


@pytest.mark.parametrize("answer", [b"<html>Please log in</html>", b"[]", b'{"sha": "../..", "siblings": []}'])
def test_what_is_no_hub_is_said(hub, cache, answer):
    hub.answers["/api/models/owner/page/revision/main"] = answer
    with pytest.raises(PullError, match="does not answer as a hub does"):
        fetch(cache, "owner/page")


def test_two_at_once_do_not_mix(hub, cache):
    hub.add(NAME)
    with cache.unfinished(Reference(NAME), "hub-x"), pytest.raises(PullError, match="another process is fetching it"):
        fetch(cache)


@pytest.mark.parametrize(
    "name", ["owner/../model", "a/b/c", "owner/model:x.bin", "/etc/passwd", "owner/model@../x", "a/b@"]
)
def test_names_that_cannot_be(cache, name):
    with pytest.raises(ConfigError):
        fetch(cache, name)


def test_a_killed_pull_leaves_nothing_that_looks_whole_and_is_resumed(hub, cache):
    content = hub.add(NAME)
    hub.faults["model.safetensors"] = ["hold"]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "OCTAVO_CACHE": str(cache.path)}
    command = [sys.executable, "-c", "import octavo.cli; octavo.cli.main()", "pull", NAME]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    part = cache.path / f"unfinished/owner--model/hub-{COMMIT}/model.safetensors.part"
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.resume.set()
    assert nothing_whole(cache)
    arrived = part.stat().st_size
    assert 0 < arrived < len(content["model.safetensors"])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert f"{NAME} is in the cache: {cache.path}/models/owner--model\n" in done.stdout
    assert (cache.path / "models/owner--model/model.safetensors").read_bytes() == content["model.safetensors"]
    assert hub.ranges("model.safetensors") == [None, f"bytes={arrived}-"]
