"""Imports go down only (DESIGN, section 1): read from the source with ast, functions and TYPE_CHECKING included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import octavo

PACKAGE = Path(octavo.__file__).parent

FLOORS = {
    0: ("errors", "config", "storage", "runlock", "rundir", "world", "heap"),
    1: ("text", "native", "model", "losses", "optim"),
    2: ("weights", "data", "tasks", "checkpoint", "disclosure", "energy", "parallel"),
    3: ("engine", "train"),
    4: ("evals", "serve", "report", "plan"),
    5: (
        *("console", "clock", "pull", "stages", "recipe", "press", "sweep", "sweep_result"),
        *("models", "adapt", "watch", "chat", "serving", "library", "assess", "export", "doctor", "cli"),
    ),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# Carriers that lower rooms may read: plain dataclasses without any import of their own room.
CARRIERS = {"octavo.data.batch", "octavo.tasks.types"}

# Rooms of one floor that may not know each other, beside those that are above.
STRANGERS = {("train", "engine"), ("engine", "train"), ("text", "model"), ("model", "text"), ("losses", "model")}

NO_TORCH = ("text", "errors", "config", "storage", "rundir", "console", "cli", "tasks.types", "model.config")
NO_TORCH += ("models", "pull.fetch", "pull.table")


def modules() -> list[str]:
    """Dotted names below octavo, of all modules but empty packages."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if name and path.stat().st_size:
            found.append(name)
    return found


def imports(module: str) -> set[str]:
    """Full names of octavo modules that a module names in any import statement."""
    path = PACKAGE / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module
            # `from octavo.losses import policy` names a module, `from octavo.config import Config` does not.
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inner = PACKAGE / Path(*whole.split(".")[1:])
                is_module = node.module.startswith("octavo") and (inner.is_dir() or inner.with_suffix(".py").exists())
                found.add(whole if is_module else node.module)
    return {name for name in found if name.startswith("octavo.")}


def room_of(module: str) -> str:
    return module.removeprefix("octavo.").split(".")[0]


def test_every_room_has_a_floor():
    assert {room_of(module) for module in modules()} <= FLOOR_OF.keys()


@pytest.mark.parametrize("module", modules())
def test_imports_go_down(module: str):
    room = room_of(module)
    for imported in imports(module):
        other = room_of(imported)
        if imported in CARRIERS or other == room:
            continue
        assert FLOOR_OF[other] <= FLOOR_OF[room], f"{module} imports {imported}, which is above it"
        assert (room, other) not in STRANGERS, f"{module} imports {imported}: the two must not know each other"


def test_nothing_below_imports_the_command_line():
    below = [module for module in modules() if room_of(module) != "cli"]
    assert not [module for module in below if "cli" in map(room_of, imports(module))]


def test_floors_have_no_import_cycles_between_rooms():
    """Rooms of one floor may use each other, but not in a circle. Carriers, which import nothing, do not count."""
    edges: dict[str, set[str]] = {}
    for module in modules():
        others = {room_of(name) for name in imports(module) if name not in CARRIERS}
        edges.setdefault(room_of(module), set()).update(others - {room_of(module)})

    def reach(room: str, seen: set[str]) -> set[str]:
        for other in edges.get(room, set()) - seen:
            reach(other, seen | {other})
            seen.add(other)
        return seen

    assert {room: room for room in edges if room in reach(room, set())} == {}


def test_light_modules_do_not_load_torch():
    """In one fresh process, one after the other: the first that brings torch in is named."""
    script = f"""
import importlib, sys
for module in {NO_TORCH!r}:
    importlib.import_module("octavo." + module)
    if "torch" in sys.modules:
        sys.exit(module)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
