"""`octavo run RECIPE --sweep`: runs that differ in one thing, each over several seeds, and one table to compare them.

A sweep is a folder of ordinary run folders, `<sweep>/<value>/seed-<n>`, so it goes on where it was, and any run in it
can be opened by itself. A stage that an earlier run of the sweep has made already (equal fingerprint: the same config,
seed and inputs) is linked instead of made again: usually everything above the stage that differs.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np

from octavo.console import Display
from octavo.errors import ConfigError, OctavoError
from octavo.evals import statistics
from octavo.evals.evaluate import Evaluation, held_out_problems
from octavo.press import Plan, Press
from octavo.recipe import Recipe, identities, load_recipe
from octavo.rundir import RunDir
from octavo.stages.evaluate import EvalStage
from octavo.storage import read_json, write_atomic, write_json
from octavo.sweep_result import SweepResult, Variant
from octavo.tasks.build import build_mixture

Run = tuple[str, int]
"""A value and a seed."""


@dataclass(frozen=True)
class SweepPlan:
    """What differs, and how often each is run."""

    key: str
    values: tuple[str, ...]
    seeds: int

    @staticmethod
    def parse(text: str, seeds: int) -> "SweepPlan":
        """`grpo.policy.kind=dapo,dr_grpo`; commas inside brackets belong to a value. Raises ConfigError."""
        key, equals, listed = text.partition("=")
        values = tuple(value.strip() for value in re.split(r",(?![^\[{]*[\]}])", listed))
        if not equals or not key.strip() or not all(values):
            raise ConfigError(f"--sweep {text!r}: expected KEY=VALUE,VALUE,... as in zero.policy.kind=dapo,grpo")
        if len(values) < 2 or len(set(map(_folder_name, values))) < len(values):
            raise ConfigError(f"--sweep {text!r}: expected at least two values, all different")
        if key.strip() == "seed":
            raise ConfigError("--sweep seed=...: seeds are not compared but repeated; use --seeds with another key")
        return SweepPlan(key.strip(), values, seeds)


def run_sweep(
    recipe: str, overrides: Sequence[str], plan: SweepPlan, folder: Path, display: Display, dry_run: bool = False
) -> SweepResult | None:
    """Run what is not finished, write `<folder>/sweep.json` and `sweep.md`, return the result (None for a dry run).

    Raises as `Press` does, and ConfigError before anything runs if the runs could not be compared.
    """
    if RunDir(folder).config_path.exists():
        raise ConfigError(f"{folder} is the folder of a single run; give the sweep another with --out")
    first = load_recipe(recipe, overrides).seed
    seeds = tuple(range(first, first + plan.seeds))
    runs = {
        (value, seed): load_recipe(recipe, [*overrides, f"{plan.key}={value}", f"seed={seed}"])
        for value, seed in product(plan.values, seeds)
    }
    compared = _compared_stage(plan, [runs[value, first] for value in plan.values])
    _check_same_problems(plan, [runs[value, first] for value in plan.values])
    folders = {run: folder / _folder_name(run[0]) / f"seed-{run[1]}" for run in runs}
    if dry_run:
        _show_plan(plan, runs, folders, display)
        return None
    for number, (run, loaded) in enumerate(runs.items(), start=1):
        display.note(_heading(number, plan, runs, run, folders[run]))
        with RunDir(folders[run]).lock():
            _link_finished(loaded, folders[run], [other for other in folders.values() if other != folders[run]])
        Press(loaded, folders[run], display).run()
    evaluations = {run: _evaluation(folders[run], compared) for run in runs}
    result = SweepResult(
        recipe=recipe,
        key=plan.key,
        stage=compared,
        problems=len(next(iter(evaluations.values())).records),
        variants=tuple(_variants(plan, seeds, evaluations)),
    )
    write_json(folder / "sweep.json", result.dump())
    write_atomic(folder / "sweep.md", result.markdown())
    return result


def _check_same_problems(plan: SweepPlan, recipes: Sequence[Recipe]) -> None:
    """Raise ConfigError unless all values are measured on the same held-out questions."""
    asked = [
        [problem.question for problem in held_out_problems(build_mixture(list(tasks)), recipe.evaluation)]
        for recipe in recipes
        for tasks in [recipe.labelled_tasks().values()]
    ]
    for value, questions in zip(plan.values, asked, strict=True):
        if questions != asked[0]:
            raise ConfigError(
                f"--sweep {plan.key}: with {value} other held-out problems are drawn than with {plan.values[0]}, so "
                "the runs could not be compared; sweep a key that leaves tasks and the problems of the evaluation alone"
            )


def _show_plan(plan: SweepPlan, runs: Mapping[Run, Recipe], folders: Mapping[Run, Path], display: Display) -> None:
    """What would run and why, and what would only be linked."""
    presses = {run: Press(loaded, folders[run], display) for run, loaded in runs.items()}
    plans = {run: press.plan() for run, press in presses.items()}
    there = {
        presses[run].identities[step.stage].fingerprint
        for run, steps in plans.items()
        for step in steps
        if step.action == "keep"
    }
    for number, (run, steps) in enumerate(plans.items(), start=1):
        display.note(_heading(number, plan, runs, run, folders[run]))
        for step in steps:
            fingerprint = presses[run].identities[step.stage].fingerprint
            if fingerprint in there and not RunDir(folders[run]).stage(step.stage).path.exists():
                step = Plan(step.stage, "link", "another run of the sweep makes it")
            presses[run].show(step)
            there.add(fingerprint)


def _heading(number: int, plan: SweepPlan, runs: Mapping[Run, Recipe], run: Run, folder: Path) -> str:
    return f"Run {number} of {len(runs)}: {plan.key}={run[0]}, seed {run[1]}, in {folder}"


def _compared_stage(plan: SweepPlan, recipes: Sequence[Recipe]) -> str:
    """Of the evaluations that differ by value, that of the recipe's result, else the last one."""
    recipe = recipes[0]
    measures = {name: stage for name, stage in recipe.stages.items() if isinstance(stage, EvalStage) and stage.model}
    if not measures:
        raise ConfigError(f"recipe {recipe.name} has no eval stage, so there is nothing to compare: add one")
    known = [identities(each) for each in recipes]
    differing = [name for name in measures if len({each[name].fingerprint for each in known}) == len(recipes)]
    if not differing:
        raise ConfigError(
            f"--sweep {plan.key}: none of the evaluations ({', '.join(measures)}) depends on it, so there is nothing "
            "to compare; sweep another key, or add an eval stage behind what it changes"
        )
    return next((name for name in reversed(differing) if measures[name].model == recipe.result), differing[-1])


def _link_finished(recipe: Recipe, folder: Path, others: Sequence[Path]) -> None:
    """Link every stage that is missing here and that another run of the sweep has finished, with equal fingerprint."""
    run = RunDir(folder)
    ledger = {entry.stage: entry for entry in run.read_ledger()} if run.ledger_path.exists() else {}
    for name, identity in identities(recipe).items():
        if run.stage(name).path.exists():
            continue
        for other in map(RunDir, others):
            if not _has_finished(other, name, identity.fingerprint):
                continue
            entry = next((entry for entry in other.read_ledger() if entry.stage == name), None)
            if entry is None:
                continue
            unfinished = run.path / f".{name}.linking"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(other.stage(name).path, unfinished, copy_function=_link)
            unfinished.rename(run.stage(name).path)
            ledger[name] = entry
            break
    if ledger:
        run.write_ledger(ledger[name] for name in recipe.stages if name in ledger)


def _has_finished(run: RunDir, stage: str, fingerprint: str) -> bool:
    try:
        manifest = run.stage(stage).read_manifest()
        known = run.ledger_path.exists()
    except OctavoError:
        return False
    return known and manifest is not None and manifest.status == "finished" and manifest.fingerprint == fingerprint


def _link(source: str, target: str) -> None:
    """A second name for the file, or a copy where the file system has no such thing. Finished files never change."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _evaluation(folder: Path, stage: str) -> Evaluation:
    path = RunDir(folder).stage(stage).evaluation
    return Evaluation.parse(read_json(path), str(path))


def _variants(plan: SweepPlan, seeds: tuple[int, ...], evaluations: Mapping[Run, Evaluation]) -> Iterator[Variant]:
    """Only problems of which every run could grade a sample are compared."""
    graded = [
        {record.id for record in evaluation.records if any(correct is not None for correct in record.correct)}
        for evaluation in evaluations.values()
    ]
    common = sorted(set.intersection(*graded))
    baseline: np.ndarray | None = None
    for value in plan.values:
        by_run = [_samples(evaluations[value, seed], common) for seed in seeds]
        shares = np.array([[sum(samples) / len(samples) for samples in run] for run in by_run])
        pooled = statistics.pass_at_1([list(chain(*of_problem)) for of_problem in zip(*by_run, strict=True)])
        variant = Variant(
            value=value,
            seeds=seeds,
            pass_at_1=float(shares.mean()),
            low=pooled.low,
            high=pooled.high,
            by_seed=tuple(shares.mean(axis=1).tolist()),
        )
        if baseline is None:
            baseline = shares.mean(axis=0)
            yield variant
            continue
        compared = statistics.compare(baseline.tolist(), shares.mean(axis=0).tolist())
        yield variant.model_copy(
            update={
                "difference": compared.difference,
                "difference_low": compared.low,
                "difference_high": compared.high,
                "p_value": compared.p_value,
            }
        )


def _samples(evaluation: Evaluation, ids: Sequence[str]) -> list[list[bool]]:
    records = {record.id: record for record in evaluation.records}
    return [[correct for correct in records[name].correct if correct is not None] for name in ids]


def _folder_name(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-.") or "empty"
