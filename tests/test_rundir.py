"""The run folder: paths, schemas that read back what they wrote, one process a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from octavo import rundir
from octavo.errors import ConfigError, DataError
from octavo.rundir import LedgerEntry, Manifest, RunDir, StageDir, SummaryRow

MANIFEST = Manifest(
    stage="rl",
    kind="grpo",
    fingerprint="f" * 64,
    config={"steps": 3, "task": {"name": "sums"}},
    inputs={"cold-start/model": "a" * 64},
    outputs={},
    seed=7,
    versions={"torch": "2.13.0"},
    machine={"cpu": "a cpu", "threads": 2},
    started_at="2026-01-02T03:04:05+00:00",
)


def test_every_path_is_inside_the_run():
    run = RunDir("runs/x")
    assert [run.config_path, run.summary_path, run.ledger_path] == [
        Path("runs/x/config.yaml"),
        Path("runs/x/summary.json"),
        Path("runs/x/ledger.json"),
    ]
    stage = run.stage("rl")
    assert stage == StageDir(Path("runs/x/rl"))
    paths = [stage.model, stage.state, stage.metrics, stage.rollouts, stage.samples, stage.evaluation, stage.manifest]
    names = ["model", "state", "metrics.jsonl", "rollouts.jsonl", "samples.jsonl", "evaluation.json", "manifest.json"]
    assert paths == [Path("runs/x/rl") / name for name in names]


def test_a_manifest_reads_back(tmp_path):
    stage = RunDir(tmp_path / "run").stage("rl")
    assert stage.read_manifest() is None
    stage.write_manifest(MANIFEST)
    assert stage.read_manifest() == MANIFEST
    assert MANIFEST.status == "running"
    done = MANIFEST.model_copy(update={"status": "finished", "finished_at": "2026-01-02T03:05:05+00:00"})
    stage.write_manifest(done)
    assert stage.read_manifest() == done


def test_a_damaged_manifest_is_named(tmp_path):
    stage = RunDir(tmp_path).stage("rl")
    stage.write_manifest(MANIFEST)
    stage.manifest.write_text(stage.manifest.read_text()[:-20])
    with pytest.raises(DataError, match=r"rl/manifest\.json: expected a JSON file"):
        stage.read_manifest()
    stage.manifest.write_text("{}")
    with pytest.raises(ConfigError, match=r"rl/manifest\.json: stage is missing"):
        stage.read_manifest()


def test_a_summary_row_has_every_column_also_where_it_does_not_apply(tmp_path):
    run = RunDir(tmp_path)
    rows = [
        SummaryRow(stage="guess", pass_at_1=0.1, low=0.08, high=0.13),
        SummaryRow(stage="final", pass_at_1=0.85, maj_at_8=0.9, tokens=10, flops=1e12, seconds=2.5),
    ]
    run.write_summary(rows)
    written = json.loads(run.summary_path.read_text())
    columns = ["stage", "pass_at_1", "low", "high", "maj_at_8"]
    columns += ["mean_completion_tokens", "finished_share", "tokens", "flops", "seconds"]
    assert [list(row) for row in written] == [columns, columns]
    assert written[0]["tokens"] is None
    assert run.read_summary() == rows


def test_a_ledger_reads_back_and_a_wrong_one_is_named(tmp_path):
    run = RunDir(tmp_path)
    entries = [LedgerEntry(stage="base", tokens=5, flops=1e15, seconds=60.0, peak_memory_bytes=10**9)]
    run.write_ledger(entries)
    assert run.read_ledger() == entries
    run.ledger_path.write_text("{}")
    with pytest.raises(DataError, match=r"ledger\.json: expected a list of rows, got dict"):
        run.read_ledger()
    run.ledger_path.write_text('[{"stage": "a", "token": 3}]')
    with pytest.raises(ConfigError, match=r"ledger\.json row 1: unknown key token \(did you mean tokens\?\)"):
        run.read_ledger()


def test_metric_names_are_distinct():
    names = [value for name, value in vars(rundir).items() if name.isupper() and isinstance(value, str)]
    assert len(names) == len(set(names)) >= 15


def test_two_processes_cannot_write_one_run(tmp_path):
    run = RunDir(tmp_path / "run")
    script = """
import sys
from octavo.errors import ConfigError
from octavo.rundir import RunDir
try:
    with RunDir(sys.argv[1]).lock():
        print("held")
except ConfigError as error:
    print(error)
"""

    def other() -> str:
        command = [sys.executable, "-c", script, str(run.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with run.lock():
        message = other()
        assert message.startswith(f"{run.path}: another process is writing this run; wait for it")
        assert "\n" not in message
    assert other() == "held"


def test_the_lock_is_free_again_after_an_error(tmp_path):
    run = RunDir(tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        _ = 1 / 0
    with run.lock():
        pass
