"""Training checkpoints that survive kill -9, a full disk and a flipped bit, and that run no code when loaded.

    <folder>/step-000123/tensors.safetensors   the tensors
    <folder>/step-000123/tree.json             everything else, naming the tensors
    <folder>/step-000123/manifest.json         step, and size and sha256 of both, written last

A checkpoint is built in a hidden folder beside its place, flushed to the disk, and renamed: at any moment its name
holds the old one, the new one or nothing. Nothing is pickled.
"""

import base64
import ctypes
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from octavo.errors import CheckpointError, StorageError
from octavo.storage import fsync_folder, storage_errors, write_all

logger = logging.getLogger(__name__)

STEP_NAME = re.compile(r"step-(\d{6,})")
TENSORS, TREE, MANIFEST = "tensors.safetensors", "tree.json", "manifest.json"
NEW, OLD = ".octavo-new", ".octavo-old"
"""Endings of hidden folders: being written or removed; moved aside."""

DTYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""Names of the safetensors format."""


def save_state(folder: Path, step: int, state: Mapping[Any, Any], keep: int = 2) -> Path:
    """Write the checkpoint of `step` and keep the `keep` newest. Returns its folder.

    `state` is a tree of dicts (keys: str, int, float, bool, None, tuples of these), lists, tuples, tensors, numbers,
    strings, bytes and None: what `state_dict()` of models, optimizers and loaders gives. Tensors come back on the CPU,
    bit for bit; shared ones come back apart. Checkpoints of later steps are removed: they are of a future that this one
    replaces. Raises StorageError, the older checkpoints then being as before.
    """
    assert keep >= 1, keep
    final = folder / f"step-{step:06d}"
    if folder.is_dir():
        clean_leftovers(folder)
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, tensors, "state")
    with write_folder(final) as temporary:
        files = {
            TENSORS: write_chunks(temporary / TENSORS, safetensors_chunks(tensors)),
            TREE: write_chunks(temporary / TREE, [json.dumps(tree, allow_nan=False).encode()]),
        }
        write_chunks(temporary / MANIFEST, [json.dumps({"step": step, "files": files}, indent=2).encode()])
    saved = _steps(folder)
    for stale in [other for other in saved if other > step] + [other for other in saved if other <= step][:-keep]:
        # Hidden first: a removal that is killed half-way must not look like a damaged checkpoint.
        hidden = saved[stale].with_name(f".{saved[stale].name}{NEW}")
        os.rename(saved[stale], hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return final


def load_latest(folder: Path, warn: Callable[[str], None] = logger.warning) -> tuple[int, Any] | None:
    """Return (step, state) of the newest checkpoint that is whole; None where there is none at all.

    A truncated or altered one is named through `warn` and the one before it is used. Raises CheckpointError naming each
    where none is whole.
    """
    if not folder.is_dir():
        return None
    clean_leftovers(folder)
    problems = []
    for step, path in sorted(_steps(folder).items(), reverse=True):
        try:
            state = _load(path, step)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"{problem}; using the checkpoint of step {step} instead")
        return step, state
    if problems:
        raise CheckpointError(
            f"no checkpoint is whole: {'; '.join(problems)}; delete {folder} to start this stage anew"
        )
    return None


@contextmanager
def write_folder(final: Path) -> Iterator[Path]:
    """Write a folder as a whole: the body fills the folder it is given, which then takes the place of `final`.

    Files are flushed to the disk first. If the body fails, or the process dies, `final` is as before. Where the system
    cannot swap two folders at once (no Linux), a kill between two renames leaves `final` away until `clean_leftovers`.
    Raises StorageError.
    """
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(final.parent, final.name)
        temporary = final.parent / f".{final.name}{NEW}"
        temporary.mkdir()
        try:
            yield temporary
            for path in sorted(temporary.rglob("*"), reverse=True):
                _fsync(path)
            fsync_folder(temporary)
            _take_place(temporary, final)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, safetensors.SafetensorError):  # what its own writer says when the disk is full
                raise StorageError(f"cannot write {final}: {error}") from error
            raise
        fsync_folder(final.parent)


def clean_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what a killed `write_folder` left in `folder`, or put back what it had moved aside."""
    for path in folder.glob(f".{name}{NEW}"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".{name}{OLD}"):
        final = path.with_name(path.name[1 : -len(OLD)])
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.rename(path, final)


def _take_place(new: Path, final: Path) -> None:
    if not final.exists():
        os.rename(new, final)
    elif _exchange(new, final):
        shutil.rmtree(new, ignore_errors=True)  # it holds the old content now
    else:
        old = final.with_name(f".{final.name}{OLD}")
        os.rename(final, old)
        os.rename(new, final)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step (renameat2, Linux). False where system or file system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # glibc 2.28
    at_cwd, exchange = -100, 2
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0


def _fsync(path: Path) -> None:
    if path.is_dir():
        fsync_folder(path)
        return
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_chunks(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """Write a new file of these chunks, hashing on the way. Returns its size and sha256."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for chunk in chunks:
            digest.update(chunk)
            write_all(descriptor, chunk)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    return {"bytes": size, "sha256": digest.hexdigest()}


def safetensors_chunks(
    tensors: Mapping[str, Tensor],
    dtypes: Mapping[str, torch.dtype] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """A safetensors file piece by piece, so that the state never exists twice in memory.

    `dtypes`: names that are written in another type than they have.
    """
    types = {name: tensor.dtype for name, tensor in tensors.items()} | dict(dtypes or {})
    # Wide types first: each tensor then lies at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: -types[name].itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * types[name].itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[types[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        tensor = tensors[name].detach()
        if tensor.numel():
            yield tensor.to("cpu", types[name]).contiguous().reshape(-1).view(torch.uint8).numpy().data


def _steps(folder: Path) -> dict[int, Path]:
    """Step -> checkpoint folder, in rising order."""
    found = [(match, path) for path in folder.iterdir() if (match := STEP_NAME.fullmatch(path.name)) and path.is_dir()]
    return {step: path for step, path in sorted((int(match[1]), path) for match, path in found)}


def _load(path: Path, step: int) -> Any:
    """Read and check one checkpoint. Raises CheckpointError naming the file."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        recorded = {name: manifest["files"][name] for name in (TENSORS, TREE)}
        if manifest["step"] != step:
            raise CheckpointError(f"{path / MANIFEST}: it is of step {manifest['step']}, expected {step}")
        for name, facts in recorded.items():
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise CheckpointError(f"{path / name} is truncated: {size} bytes, expected {facts['bytes']}")
            with open(path / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                    raise CheckpointError(f"{path / name} was altered: its sha256 is not the recorded one")
        return _decode(json.loads((path / TREE).read_bytes()), safetensors.torch.load_file(path / TENSORS))
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """The tree as JSON. What JSON has no word for becomes an object with one key that begins with $."""
    match value:
        case Tensor():
            if value.dtype not in DTYPE_NAMES or value.layout is not torch.strided:
                raise TypeError(f"{where}: a checkpoint cannot hold a {value.layout} tensor of {value.dtype}")
            name = f"{len(tensors)}:{where}"
            tensors[name] = value
            return {"$tensor": name}
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            finite = value - value == 0
            return float(value) if finite else {"$float": repr(float(value))}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case tuple():
            return {"$tuple": [_encode(child, tensors, f"{where}.{i}") for i, child in enumerate(value)]}
        case list():
            return [_encode(child, tensors, f"{where}.{i}") for i, child in enumerate(value)]
        case Mapping():
            pairs = [(key, _encode(child, tensors, f"{where}.{key}")) for key, child in value.items()]
            if all(type(key) is str and not key.startswith("$") for key, _ in pairs):
                return dict(pairs)
            return {"$dict": [[_encode(key, tensors, f"{where} key"), child] for key, child in pairs]}
    raise TypeError(f"{where}: a checkpoint cannot hold a {type(value).__name__}")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case list():
            return [_decode(child, tensors) for child in value]
        case {"$tensor": name}:
            return tensors[name]
        case {"$float": text}:
            return float(text)
        case {"$bytes": text}:
            return base64.b64decode(text)
        case {"$tuple": children}:
            return tuple(_decode(child, tensors) for child in children)
        case {"$dict": pairs}:
            return {_decode(key, tensors): _decode(child, tensors) for key, child in pairs}
        case dict():
            return {key: _decode(child, tensors) for key, child in value.items()}
    return value
