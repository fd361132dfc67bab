"""One run as it stands on disk: its stages, how far they are, what they scored and spent.

Everything is read from the run folder, which another process may be writing, or somebody copied here. What cannot be
read is told in `problems`, and the rest is shown.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from octavo import rundir
from octavo.config import Config, load_yaml
from octavo.errors import DataError, OctavoError
from octavo.rundir import LedgerEntry, Manifest, RunDir, SummaryRow
from octavo.runlock import holder
from octavo.serve.runs.files import MOST_JSON_BYTES, MOST_YAML_BYTES, Memory, Rows, last_rows, whole_file

Status = Literal["running", "finished", "interrupted", "waiting"]
_PACE_STEPS = 30
"""Time left is told from the pace of so many last steps."""
_MOST_STAGES = 200

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class StageView:
    """One stage: `step` of `steps` optimizer steps, where it trains; what it spent, once it has finished."""

    name: str
    kind: str
    status: Status
    manifest: Manifest | None = None
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    joules: float | None = None
    joules_are_measured: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    """The last row of metrics.jsonl."""
    spent: LedgerEntry | None = None


@dataclass(frozen=True)
class RunView:
    """One run."""

    name: str
    title: str
    """What its recipe is called."""
    description: str
    status: Status
    stages: tuple[StageView, ...]
    summary: tuple[SummaryRow, ...]
    changed_at: float | None
    """When something of it was written last, seconds since 1970."""
    pid: int | None
    """The process of this machine that writes it."""
    problems: tuple[str, ...]
    result_stage: str = ""
    """The stage that the run stands for, as its recipe says."""

    @property
    def current(self) -> StageView | None:
        """The stage that runs, or was interrupted; else the last one that has finished."""
        for status in ("running", "interrupted"):
            for stage in self.stages:
                if stage.status == status:
                    return stage
        done = [stage for stage in self.stages if stage.status == "finished"]
        return done[-1] if done else None

    @property
    def joules(self) -> float | None:
        """Of all stages that know theirs."""
        known = [stage.joules for stage in self.stages if stage.joules is not None]
        return sum(known) if known else None

    @property
    def joules_are_measured(self) -> bool:
        """All of them."""
        return all(stage.joules_are_measured for stage in self.stages if stage.joules is not None)

    @property
    def result(self) -> SummaryRow | None:
        """The closing table's row of the stage that the run stands for."""
        return next((row for row in self.summary if row.stage == self.result_stage), None)


def read_run(name: str, run: RunDir, memory: Memory) -> RunView:
    """Read the run folder. Raises nothing that a file can cause."""
    return _Reader(name, run, memory).read()


class _Reader:
    """Reads one run, and keeps what could not be read."""

    def __init__(self, name: str, run: RunDir, memory: Memory):
        self.name, self.run, self.memory = name, run, memory
        self.problems: list[str] = []

    def read(self) -> RunView:
        recipe = self._take(self.run.config_path, _recipe, {})
        process = holder(self.run.lock_path)
        ledger = {entry.stage: entry for entry in self._take(self.run.ledger_path, _ledger, ())}
        listed = recipe.get("stages")
        stages = listed if isinstance(listed, dict) else {}
        names = [name for name in stages if _names_a_folder(name)][:_MOST_STAGES]
        views = tuple(
            self._stage(name, stages[name] if isinstance(stages[name], dict) else {}, process is not None, ledger)
            for name in names
        )
        written = [self.run.config_path, self.run.ledger_path, self.run.summary_path]
        for name in names:
            stage = self.run.stage(name)
            written += [stage.manifest, stage.metrics, stage.clock, stage.evaluation]
        times = [time for path in written if (time := _changed_at(path)) is not None]
        return RunView(
            name=self.name,
            title=_text(recipe.get("name")) or self.name,
            description=_text(recipe.get("description")),
            status=_run_status(views, running=process is not None),
            stages=views,
            summary=self._take(self.run.summary_path, _summary, ()),
            changed_at=max(times, default=None),
            pid=process.pid if process else None,
            problems=tuple(self.problems),
            result_stage=_text(recipe.get("result")),
        )

    def _stage(self, name: str, config: dict[str, Any], run_runs: bool, ledger: dict[str, LedgerEntry]) -> StageView:
        folder = self.run.stage(name)
        kind = _text(config.get("kind"))
        manifest = self._take(folder.manifest, _manifest, None)
        if manifest is None:
            return StageView(name, kind, "waiting")
        metrics = self._take(folder.metrics, _last_metrics, Rows(()))
        status: Status = "finished" if manifest.status == "finished" else "running" if run_runs else "interrupted"
        step = metrics.rows[-1].get("step") if metrics.rows else None
        loop = config.get("loop")
        steps = loop.get("steps") if isinstance(loop, dict) else None
        spent = ledger.get(name) if status == "finished" else None
        clock = self._take(folder.clock, _clock, {}) if spent is None else spent.dump()
        so_far = numbers(clock)
        return StageView(
            name=name,
            kind=kind,
            status=status,
            manifest=manifest,
            step=step if isinstance(step, int) else None,
            steps=steps if isinstance(steps, int) else None,
            seconds=so_far.get("seconds"),
            seconds_left=_seconds_left(metrics, step, steps) if status == "running" else None,
            joules=so_far.get("joules"),
            joules_are_measured=clock.get("joules_source") == "measured",
            figures=numbers(metrics.rows[-1]) if metrics.rows else {},
            spent=spent,
        )

    def _take(self, path: Path, make: Callable[[Path], T], otherwise: T) -> T:
        """What is made of a file, or `otherwise`, the problem being kept."""
        try:
            return self.memory.made(path, make)
        except OctavoError as error:
            self.problems.append(str(error).replace(f"{self.run.path}/", ""))
            return otherwise


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row of metrics, without its step."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    }


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _run_status(stages: tuple[StageView, ...], running: bool) -> Status:
    if running:
        return "running"
    if stages and all(stage.status == "finished" for stage in stages):
        return "finished"
    return "waiting" if all(stage.status == "waiting" for stage in stages) else "interrupted"


def _seconds_left(metrics: Rows, step: object, steps: object) -> float | None:
    """Steps that are left, at the mean pace of the last ones."""
    paces = [pace for row in metrics.rows if (pace := numbers(row).get(rundir.SECONDS)) is not None]
    if not paces or not isinstance(step, int) or not isinstance(steps, int):
        return None
    return max(0, steps - step) * sum(paces) / len(paces)


def _last_metrics(path: Path) -> Rows:
    return last_rows(path, _PACE_STEPS)


def _recipe(path: Path) -> dict[str, Any]:
    text = whole_file(path, MOST_YAML_BYTES)
    if text is None:
        return {}
    try:
        values = load_yaml(text.decode(), str(path))
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: expected YAML in UTF-8") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected a recipe, got {type(values).__name__}")
    return values


def read_small_json(path: Path) -> Any:
    """One JSON value, None where there is no file. Raises DataError where it is damaged or too large."""
    text = whole_file(path, MOST_JSON_BYTES)
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON file; it is damaged or half-written") from error


def _manifest(path: Path) -> Manifest | None:
    values = read_small_json(path)
    return None if values is None else Manifest.parse(values, str(path))


def _ledger(path: Path) -> tuple[LedgerEntry, ...]:
    return _entries(path, LedgerEntry)


def _summary(path: Path) -> tuple[SummaryRow, ...]:
    return _entries(path, SummaryRow)


def _entries(path: Path, kind: type[ConfigT]) -> tuple[ConfigT, ...]:
    values = read_small_json(path)
    if values is not None and not isinstance(values, list):
        raise DataError(f"{path}: expected a list of rows, got {type(values).__name__}")
    return tuple(kind.parse(row, f"{path} row {number}") for number, row in enumerate(values or (), start=1))


def _clock(path: Path) -> dict[str, Any]:
    """What a stage that has not finished spent so far."""
    values = read_small_json(path)
    return values if isinstance(values, dict) else {}


def _names_a_folder(name: object) -> bool:
    """A recipe from elsewhere may call a stage `../..`."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _changed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        return None
