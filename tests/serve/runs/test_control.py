"""Stopping runs and taking them up: real processes."""

import subprocess
import sys
import time

import pytest
import yaml

from made_run import make_run
from octavo.errors import ConfigError
from octavo.recipe import parse_recipe
from octavo.rundir import RunDir
from octavo.runlock import holder
from octavo.serve.runs import control
from octavo.serve.runs.control import Controls, Start, resume_command
from octavo.serve.runs.files import Memory
from octavo.serve.runs.view import read_run
from tiny_recipe import RECIPE

PATIENCE_SECONDS = 60


def wait(until, process: subprocess.Popen) -> None:
    """Until something is so; the process must not end before."""
    start = time.monotonic()
    while not until():
        assert process.poll() is None, "the process ended"
        assert time.monotonic() - start < PATIENCE_SECONDS
        time.sleep(0.05)


def test_a_run_is_taken_up_and_stopped(tmp_path):
    run = RunDir(tmp_path / "runs" / "tiny")
    run.path.mkdir(parents=True)
    recipe = parse_recipe(RECIPE, "tiny", ["base.loop.steps=100000", "base.loop.checkpoint_every_steps=1"])
    run.config_path.write_text(yaml.safe_dump(recipe.dump(), sort_keys=False))
    controls, stage = Controls(), run.stage("base")
    pid = controls.resume(run)
    process = controls._started[run.path]
    assert process.pid == pid
    assert controls.started(run).exit_code is None
    with pytest.raises(ConfigError, match=f"tiny: process {pid} is writing this run already"):
        controls.resume(run)
    wait(lambda: stage.metrics.exists() and stage.metrics.read_text().count("\n") >= 2, process)
    assert controls.started(run) is None  # it works
    assert read_run("tiny", run, Memory()).status == "running"
    assert controls.stop(run) == pid
    assert process.wait(PATIENCE_SECONDS) == 130
    assert "Interrupted. To go on where it was: octavo run" in run.log_path.read_text()
    assert read_run("tiny", run, Memory()).status == "interrupted"
    assert read_run("tiny", run, Memory()).current.name == "base"
    with pytest.raises(ConfigError, match="tiny: no process of this machine is writing this run"):
        controls.stop(run)
    assert holder(run.lock_path) is None


def test_the_command_is_ours_and_takes_only_the_recipe_from_the_run(tmp_path):
    run = make_run(tmp_path / "a b; rm -rf")
    (run.path / ".lock").write_text('{"pid": 1, "folder": ".", "command": ["rm", "-rf", "/"]}')
    assert resume_command(run) == [
        *(sys.executable, "-P", "-m", "octavo.cli", "run"),
        *(str(tmp_path / "a b; rm -rf" / "config.yaml"), "--out", str(tmp_path / "a b; rm -rf")),
    ]


def test_a_run_that_cannot_be_taken_up_says_why(tmp_path, monkeypatch):
    script = "import sys; print('octavo: recipe config.yaml: no such key', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(control, "resume_command", lambda run: [sys.executable, "-c", script])
    run = make_run(tmp_path / "a")
    controls = Controls()
    controls.resume(run)
    assert controls._started[run.path].wait(PATIENCE_SECONDS) == 2
    assert controls.started(run) == Start(2, "octavo: recipe config.yaml: no such key")


def test_a_run_without_a_recipe_is_not_taken_up(tmp_path):
    with pytest.raises(ConfigError, match=r"a: there is no config\.yaml to go on from"):
        Controls().resume(RunDir(tmp_path / "a"))
