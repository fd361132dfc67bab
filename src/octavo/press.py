"""Runs a recipe: what is finished and unchanged is kept, what was interrupted goes on, the rest is made.

A stage's manifest is written when the stage starts (status "running") and, as its last act, when it ends ("finished"),
so a stage killed at any moment is either finished or goes on from its training state. What a changed stage had made
before is moved to `<run>/old/`, and only when the stage starts anew.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import yaml

from octavo.clock import Clock
from octavo.console import Display
from octavo.disclosure import machine_description, now, package_versions, sha256_of
from octavo.errors import CheckpointError, OctavoError
from octavo.recipe import OLD, Identity, Recipe, differences, identities
from octavo.rundir import LedgerEntry, Manifest, RunDir, StageDir, SummaryRow
from octavo.stages.meter import Meter
from octavo.stages.stage import Workshop
from octavo.storage import fsync_folder, write_atomic
from octavo.tasks.build import build_mixture
from octavo.world import World, seed_everything, set_threads

Action = Literal["make", "go on", "keep", "link"]
"""`link` is a sweep's: another of its runs has made the stage, or will have."""


@dataclass(frozen=True)
class Plan:
    """What will happen to a stage, and why."""

    stage: str
    action: Action
    reason: str = ""


class Press:
    """One recipe in one run folder."""

    def __init__(self, recipe: Recipe, folder: Path, display: Display, fresh: bool = False):
        self.recipe = recipe
        self.run_dir = RunDir(folder)
        self.display = display
        self.fresh = fresh
        self.world = World.single()
        if recipe.threads is not None:
            set_threads(recipe.threads)
        # A task that cannot be built is found now, not in an hour.
        if recipe.tasks:
            build_mixture(list(recipe.labelled_tasks().values()))
        self.identities = identities(recipe)

    def plan(self) -> list[Plan]:
        """What a run would do now. Reads the run folder, changes nothing."""
        plans: dict[str, Plan] = {}
        for name, stage in self.recipe.stages.items():
            remade = [source for source in stage.inputs().values() if plans[source].action != "keep"]
            plans[name] = self._plan_stage(name, self.identities[name], remade)
        return list(plans.values())

    def _plan_stage(self, name: str, identity: Identity, remade: list[str]) -> Plan:
        folder = self.run_dir.stage(name)
        if not folder.manifest.exists():
            return Plan(name, "make")
        if self.fresh:
            return Plan(name, "make", "--fresh")
        try:
            manifest = folder.read_manifest()
        except OctavoError:
            manifest = None
        if manifest is None:
            return Plan(name, "make", "its manifest cannot be read")
        if manifest.fingerprint != identity.fingerprint:
            return Plan(name, "make", "; ".join(differences(manifest.config, identity.facts)))
        # A remade input with the same identity should give the same bytes, but nobody has seen them yet.
        if remade:
            return Plan(name, "make", f"{remade[0]} is made again")
        if manifest.status == "running":
            return Plan(name, "go on")
        if damaged := _damaged(folder, manifest):
            return Plan(name, "make", f"{damaged} does not match its checksum")
        return Plan(name, "keep")

    def show_plan(self) -> None:
        for plan in self.plan():
            self.show(plan)

    def show(self, plan: Plan) -> None:
        reason = f": {plan.reason}" if plan.reason else ""
        self.display.note(f"{plan.stage}: {plan.action}{reason}")

    def run(self) -> None:
        """Run what is not finished, then show the closing table."""
        with self.run_dir.lock():
            plans = self.plan()
            self._explain(plans)
            write_atomic(self.run_dir.config_path, yaml.safe_dump(self.recipe.dump(), sort_keys=False))
            for number, plan in enumerate(plans, start=1):
                if plan.action != "keep":
                    self._run_stage(plan, number)
            self._close()

    def _explain(self, plans: list[Plan]) -> None:
        kept = [plan.stage for plan in plans if plan.action == "keep"]
        if kept:
            self.display.note(f"Finished before and unchanged: {', '.join(kept)}.")
        told: set[str] = set()
        for plan in plans:
            if plan.action == "go on":
                self.display.note(f"{plan.stage} was interrupted; it goes on where it was.")
            elif plan.reason and plan.stage not in told:
                readers = self.recipe.readers(plan.stage)
                told.update(readers)
                also = f", and so does what depends on it: {', '.join(readers)}" if readers else ""
                self.display.note(f"{plan.stage}: {plan.reason}; runs again{also}.")

    def _run_stage(self, plan: Plan, number: int) -> None:
        name, stage = plan.stage, self.recipe.stages[plan.stage]
        folder = self.run_dir.stage(name)
        self.display.stage_started(name, stage.kind, number, len(self.recipe.stages))
        if plan.action == "make":
            self._put_aside(folder)
        clock = Clock(folder.clock)
        if plan.action == "make":
            folder.write_manifest(self._manifest(name))
        seed = self.recipe.stage_seed(name)
        seed_everything(seed)
        sources = {field: self.run_dir.stage(source) for field, source in stage.inputs().items()}
        cost = stage.run(
            Workshop(
                folder=folder,
                sources=sources,
                seed=seed,
                tasks=self.recipe.labelled_tasks(),
                asking=self.recipe.asking,
                evaluation=self.recipe.evaluation,
                engine=self.recipe.engine,
                world=self.world,
                meter=Meter(name, self.display, clock),
                display=self.display,
            )
        )
        done = {"outputs": _outputs(folder), "finished_at": now(), "status": "finished"}
        started = folder.read_manifest()
        assert started is not None
        entry = LedgerEntry(
            stage=name,
            tokens=cost.tokens,
            flops=cost.flops,
            seconds=clock.seconds,
            peak_memory_bytes=clock.peak_memory_bytes,
            peak_memory_scope=clock.memory.scope,
            joules=clock.joules,
            joules_source=clock.joules_source,
        )
        self._enter(entry)
        folder.write_manifest(started.model_copy(update=done))
        shutil.rmtree(folder.state, ignore_errors=True)  # only a stage that is not finished needs its training state
        self.display.stage_finished(name, entry.seconds)

    def _put_aside(self, folder: StageDir) -> None:
        """Move what another config made to `old/`, unfinished training too: it may have taken days."""
        if not folder.path.exists():
            return
        try:
            manifest = folder.read_manifest()
        except OctavoError:
            manifest = None
        unfinished = manifest is not None and manifest.status == "running"
        if not folder.manifest.exists() or (unfinished and not any(folder.state.glob("[!.]*"))):
            shutil.rmtree(folder.path)
            return
        label = manifest.fingerprint[:8] + ("-unfinished" if unfinished else "") if manifest else "unreadable"
        target = self.run_dir.path / OLD / f"{folder.path.name}-{label}"
        if target.exists():  # the very same stage, put aside before
            shutil.rmtree(target)
        target.parent.mkdir(exist_ok=True)
        folder.path.rename(target)
        fsync_folder(self.run_dir.path)
        what = "The unfinished work of {}" if unfinished else "What {} had made before"
        self.display.note(f"{what.format(folder.path.name)} is kept in {target}.")

    def _manifest(self, name: str) -> Manifest:
        """The manifest of a stage that starts now."""
        stage, identity = self.recipe.stages[name], self.identities[name]
        made = {
            f"{source}/{path}": digest
            for source in stage.inputs().values()
            for path, digest in _finished(self.run_dir.stage(source)).outputs.items()
        }
        return Manifest(
            stage=name,
            kind=stage.kind,
            fingerprint=identity.fingerprint,
            config=dict(identity.facts),
            inputs=made | dict(identity.facts["files"]),
            outputs={},
            seed=self.recipe.stage_seed(name),
            versions=package_versions(),
            machine=machine_description(),
            started_at=now(),
        )

    def _enter(self, entry: LedgerEntry) -> None:
        """Write the stage's ledger entry, in the recipe's order; stages that are no longer in it go."""
        entries = {known.stage: known for known in self._ledger()} | {entry.stage: entry}
        self.run_dir.write_ledger(entries[name] for name in self.recipe.stages if name in entries)

    def _ledger(self) -> list[LedgerEntry]:
        return self.run_dir.read_ledger() if self.run_dir.ledger_path.exists() else []

    def _close(self) -> None:
        ledger = {entry.stage: entry for entry in self._ledger()}
        rows = list(self._rows(ledger))
        self.run_dir.write_summary(rows)
        # From the start of the process, so that loading the program counts as well.
        command_seconds = time.time() - psutil.Process().create_time()
        self.display.closing(rows, {name: ledger[name].seconds for name in self.recipe.stages}, command_seconds)

    def _rows(self, ledger: dict[str, LedgerEntry]) -> Iterator[SummaryRow]:
        for name, stage in self.recipe.stages.items():
            row = stage.summary_row(self.run_dir.stage(name))
            if row is None:
                continue
            spent = ledger.get(stage.inputs().get("model", ""))
            if spent is not None:
                row = row.model_copy(update={"tokens": spent.tokens, "flops": spent.flops, "seconds": spent.seconds})
            yield row


def _finished(folder: StageDir) -> Manifest:
    manifest = folder.read_manifest()
    if manifest is None or manifest.status != "finished":
        raise CheckpointError(f"{folder.path}: the stage has not finished; run the recipe again")
    return manifest


def _outputs(folder: StageDir) -> dict[str, str]:
    """What later stages and people may use of a stage: its model and its results, not its training state."""
    results = (folder.evaluation, folder.text_score, folder.vocabulary, folder.self_test)
    made = (folder.model, folder.adapter, folder.samples, *results)
    return {path.name: sha256_of(path) for path in made if path.exists()}


def _damaged(folder: StageDir, manifest: Manifest) -> str | None:
    """The first output that is gone or altered."""
    for name, digest in manifest.outputs.items():
        path = folder.path / name
        if not path.exists() or sha256_of(path) != digest:
            return str(path)
    return None
