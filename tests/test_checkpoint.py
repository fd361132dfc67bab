"""Checkpoints: bit exact, atomic under kill -9 and a full disk, damage named, nothing executed on loading."""

import errno
import hashlib
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo import checkpoint
from octavo.checkpoint import clean_leftovers, load_latest, save_state, write_folder
from octavo.errors import CheckpointError, StorageError


def same(first, second) -> bool:
    """Equal in type, order and every bit."""
    if isinstance(first, torch.Tensor):
        alike = isinstance(second, torch.Tensor) and (first.dtype, first.shape) == (second.dtype, second.shape)
        return alike and torch.equal(_bits(first), _bits(second))
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return repr(first) == repr(second)  # tells -0.0 from 0.0 and finds nan equal


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def round_trip(folder: Path, state):
    save_state(folder, 1, state)
    loaded = load_latest(folder)
    assert loaded is not None
    return loaded[1]


@pytest.mark.parametrize("dtype", list(checkpoint.DTYPE_NAMES))
def test_every_dtype_and_layout_returns_bit_for_bit(tmp_path, dtype):
    raw = torch.randint(0, 256, (4, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = raw > 127 if dtype is torch.bool else raw.view(dtype)  # arbitrary bits: NaNs with payload, denormals
    state = {
        "zero_dim": values.reshape(-1)[3],
        "transposed": values.transpose(0, 1),
        "strided": values[::2, 1::3],
        "expanded": values[:1].expand(5, *values.shape[1:]),
        "empty": values[:0],
        "odd": values.reshape(-1)[:3],
        "flags": torch.tensor([True, False, True]),
    }
    assert same(round_trip(tmp_path, state), state)


def test_the_tree_returns_exactly(tmp_path):
    state = {
        "int keys": {0: "a", 1: {"step": torch.tensor(3.0)}, -5: None},
        "mixed": {(1, "x"): 1.5, True: "yes", None: [], 2.5: ()},
        "$tensor": "not a tensor",
        "odd floats": [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1 + 0.2],
        "big": 2**200,
        "bytes": bytes(range(256)),
        "nested": (1, [2, (3, {"": b""})]),
        "text": 'a\n"\u2028é\x00',
        "flags": [True, False, 0, 1],
    }
    assert same(round_trip(tmp_path, state), state)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$tensor", "$dict", "$tuple", "$float", "$bytes"]), inner, max_size=2)
    ),
    max_leaves=15,
)


@settings(max_examples=150)
@given(st.dictionaries(KEYS, TREES, max_size=3))
def test_any_tree_returns_exactly(state):
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(checkpoint._encode(state, tensors, "state"), allow_nan=False)
    assert same(checkpoint._decode(json.loads(text), tensors), state)


def test_a_training_state_goes_on_bit_for_bit(tmp_path):
    def build():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
        model[1].weight = torch.nn.Parameter(model[0].weight.detach().T.clone())
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def steps(model, optimizer, first, last):
        for step in range(first, last):
            inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (model(inputs) - inputs).square().mean().backward()
            optimizer.step()

    whole, optimizer = build()
    steps(whole, optimizer, 0, 8)
    half, optimizer = build()
    steps(half, optimizer, 0, 4)
    save_state(tmp_path, 4, {"model": half.state_dict(), "optimizer": optimizer.state_dict()})
    resumed, optimizer = build()
    step, state = load_latest(tmp_path)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    steps(resumed, optimizer, step, 8)
    assert same(resumed.state_dict(), whole.state_dict())
    # What was loaded may be trained in place without touching the file.
    assert same(load_latest(tmp_path)[1]["model"], dict(half.state_dict()))


def test_tied_tensors_are_both_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    loaded = round_trip(tmp_path, {"embedding": weight, "head": weight, "part": weight[1]})
    assert same(loaded, {"embedding": weight, "head": weight, "part": weight[1]})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": {1, 2}}}, "state.a.b: a checkpoint cannot hold a set"),
        ({"a": [torch.zeros(1, dtype=torch.complex64)]}, r"state.a.0: .* tensor of torch.complex64"),
        ({"a": torch.eye(2).to_sparse()}, r"state.a: .* torch.sparse_coo tensor"),
        ({frozenset(): 1}, "state key: a checkpoint cannot hold a frozenset"),
    ],
)
def test_what_cannot_be_held_is_named_and_nothing_is_written(tmp_path, state, message):
    with pytest.raises(TypeError, match=message):
        save_state(tmp_path / "state", 1, state)
    assert not (tmp_path / "state").exists()


def test_the_newest_are_kept_in_numerical_order(tmp_path):
    assert load_latest(tmp_path / "none") is None
    assert load_latest(tmp_path) is None
    for step in (1, 2, 10, 999_999, 1_000_000):
        save_state(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-999999"]
    assert load_latest(tmp_path) == (1_000_000, {"step": 1_000_000})


def test_saving_an_earlier_step_removes_the_abandoned_future(tmp_path):
    for step in (10, 20, 15):
        save_state(tmp_path, step, {"step": step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-000015"]


def test_saving_a_step_again_replaces_it(tmp_path):
    save_state(tmp_path, 5, {"x": 1})
    save_state(tmp_path, 5, {"x": 2})
    assert load_latest(tmp_path) == (5, {"x": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["tensors.safetensors", "tree.json", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    for step in (1, 2):
        save_state(tmp_path, step, {"w": torch.full((40,), float(step)), "step": step})
    damage(tmp_path / "step-000002" / name)
    warnings: list[str] = []
    step, state = load_latest(tmp_path, warnings.append)
    assert (step, state["step"], state["w"].tolist()) == (1, 1, [1.0] * 40)
    assert len(warnings) == 1
    assert "step-000002" in warnings[0]
    assert "using the checkpoint of step 1 instead" in warnings[0]
    assert "\n" not in warnings[0]


def test_without_a_callback_the_damage_is_logged(tmp_path, caplog):
    save_state(tmp_path, 1, {})
    save_state(tmp_path, 2, {})
    truncate(tmp_path / "step-000002" / "tree.json")
    assert load_latest(tmp_path) == (1, {})
    assert "step-000002/tree.json is truncated" in caplog.text


def test_if_none_is_whole_each_is_named(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, step, {"w": torch.ones(3)})
        truncate(tmp_path / f"step-{step:06d}" / "tensors.safetensors")
    with pytest.raises(CheckpointError, match=r"step-000002.* is truncated.*step-000001.* is truncated.*delete"):
        load_latest(tmp_path)


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    save_state(tmp_path, 1, {})
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000009")
    warnings: list[str] = []
    assert load_latest(tmp_path, warnings.append) == (1, {})
    assert "it is of step 1, expected 9" in warnings[0]


def test_a_pickle_in_the_place_of_a_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was here",))

    save_state(tmp_path, 1, {"w": torch.ones(3)})
    for name in ("tensors.safetensors", "tree.json"):
        (tmp_path / "step-000001" / name).write_bytes(pickle.dumps(Evil()))
    manifest = json.loads((tmp_path / "step-000001" / "manifest.json").read_text())
    for name, facts in manifest["files"].items():  # the forger corrects the checksums too
        data = (tmp_path / "step-000001" / name).read_bytes()
        facts.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (tmp_path / "step-000001" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="step-000001 is damaged"):
        load_latest(tmp_path)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("writes", range(4))
def test_a_disk_full_at_any_write_leaves_the_last_checkpoint(tmp_path, monkeypatch, writes):
    save_state(tmp_path, 1, {"w": torch.ones(3)})
    real, done = os.write, []

    def write(descriptor, data):
        if len(done) == writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(1)
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(StorageError, match=r"cannot write .*step-000002: No space left on device; free"):
            save_state(tmp_path, 2, {"w": torch.ones(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    step, state = load_latest(tmp_path)
    assert (step, state["w"].tolist()) == (1, [1.0, 1.0, 1.0])


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    state = {"w": torch.arange(20.0), "text": "x" * 100}
    assert same(round_trip(tmp_path, state), state)


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_real_limit_on_file_size_is_a_storage_error(tmp_path):
    script = """
import resource, sys, torch
from pathlib import Path
from octavo.checkpoint import save_state
from octavo.errors import StorageError
folder = Path(sys.argv[1])
save_state(folder, 1, {"w": torch.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_state(folder, 2, {"w": torch.ones(100_000)})
except StorageError as error:
    print(error)
"""
    done = run(script, tmp_path)
    assert "step-000002: File too large" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert load_latest(tmp_path)[0] == 1


SAVE_FOREVER = """
import itertools, os, sys, torch
from pathlib import Path
from octavo.checkpoint import load_latest, save_state, write_folder
folder = Path(sys.argv[1])

def work():
    latest = load_latest(folder / "state")
    print(os.getpid(), flush=True)
    for step in itertools.count(latest[0] + 1 if latest else 1):
        save_state(folder / "state", step, {"w": torch.full((50_000,), float(step)), "step": step, 3: (step,)})
        with write_folder(folder / "model") as temporary:
            for name in ("a", "b"):
                (temporary / name).write_text(str(step))

for line in sys.stdin:  # torch is loaded once; each line starts a process to be killed
    child = os.fork()
    if child == 0:
        work()
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint_and_model(tmp_path):
    dice = random.Random(0)
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"}) as parent:
        last = model = 0
        for _ in range(12):
            print("start", file=parent.stdin, flush=True)
            child = int(parent.stdout.readline())
            time.sleep(0.02 + 0.2 * dice.random())
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "dead\n"
            warnings: list[str] = []
            latest = load_latest(tmp_path / "state", warnings.append)
            assert warnings == []
            step, state = latest or (0, None)
            assert step >= last
            if step:
                assert same(state, {"w": torch.full((50_000,), float(step)), "step": step, 3: (step,)})
            if (tmp_path / "model").exists():
                first, second = [int((tmp_path / "model" / name).read_text()) for name in ("a", "b")]
                assert model <= first == second <= step
                model = first
            last = step
        parent.stdin.close()
    assert last >= model > 1
    assert all(not path.name.startswith(".") for path in (tmp_path / "state").iterdir())


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    final = tmp_path / "model"
    with write_folder(final) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(RuntimeError), write_folder(final) as temporary:
        raise RuntimeError((temporary / "new").write_text("2"))
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
    with write_folder(final) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "new").write_text("2")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "model", "new"]


def test_without_an_atomic_swap_a_kill_between_the_renames_is_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_exchange", lambda first, second: False)
    final = tmp_path / "model"
    for content in ("1", "2"):
        with write_folder(final) as temporary:
            (temporary / "a").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (final / "a").read_text() == "2"
    # As a kill between the two renames leaves it: the old one aside, the new one not yet in place.
    final.rename(tmp_path / ".model.octavo-old")
    (tmp_path / ".model.octavo-new").mkdir()
    clean_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (final / "a").read_text() == "2"


def test_the_disk_full_in_a_foreign_writer_is_a_storage_error(tmp_path):
    import safetensors

    with pytest.raises(StorageError, match=r"cannot write .*model: .*No space"), write_folder(tmp_path / "model"):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []
