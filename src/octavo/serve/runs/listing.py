"""Run folders below a root, by name. A name from outside is looked up here and never becomes a path by itself."""

import os
from pathlib import Path

from octavo.errors import DataError
from octavo.rundir import RunDir

_DEEPEST = 4
"""Levels below the root: a sweep keeps its runs two levels down."""
_MOST_FOLDERS = 5000
_PASSED_OVER = {"old"}
"""What changed stages had made before, kept inside a run."""


def find_runs(root: Path) -> dict[str, RunDir]:
    """Name -> run, in the order of names: the path below the root, or its own name where the root is a run itself.

    A run is a folder with config.yaml; what lies inside it is its own. A root that does not exist (yet) has none.
    Raises DataError where the root is no folder.
    """
    if not root.exists():
        return {}
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with run folders; octavo run makes them in runs/")
    if _is_run(root):
        return {_printable(root.resolve().name): RunDir(root)}
    found: dict[str, RunDir] = {}
    seen = 0
    level = [(root, "")]
    for _ in range(_DEEPEST):
        below: list[tuple[Path, str]] = []
        for folder, prefix in level:
            for path in _folders(folder):
                seen += 1
                if seen > _MOST_FOLDERS:
                    return dict(sorted(found.items()))
                name = prefix + _printable(path.name)
                if _is_run(path):
                    found[name] = RunDir(path)
                else:
                    below.append((path, f"{name}/"))
        level = below
    return dict(sorted(found.items()))


def _is_run(path: Path) -> bool:
    try:
        return (path / "config.yaml").is_file()
    except OSError:
        return False


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return [path / name for name in sorted(names) if name not in _PASSED_OVER]


def _printable(name: str) -> str:
    """A file name may be bytes that are no UTF-8; a page cannot hold them."""
    return name.encode("utf-8", "replace").decode()
