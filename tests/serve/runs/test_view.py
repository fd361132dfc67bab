"""What is told of a run folder: values of a good one, and what is left of a bad one."""

import json
import os

import pytest

from made_run import make_run, write_lines
from octavo.rundir import RunDir
from octavo.serve.runs.files import Memory
from octavo.serve.runs.view import RunView, numbers, read_run


def view(run: RunDir) -> RunView:
    return read_run("a", run, Memory())


def test_a_run_in_the_making(tmp_path):
    run = make_run(tmp_path / "a")
    with run.lock():
        seen = view(run)
    assert (seen.title, seen.description, seen.status) == ("tiny", "A recipe of seconds.", "running")
    assert seen.pid == os.getpid()
    assert seen.problems == ()
    assert [(stage.name, stage.kind, stage.status) for stage in seen.stages] == [
        ("base", "pretrain", "finished"),
        ("rl", "grpo", "running"),
        ("eval-rl", "eval", "waiting"),
    ]
    base, rl, _ = seen.stages
    assert seen.current is rl
    assert (rl.step, rl.steps, rl.seconds) == (6, 10, 12.5)
    assert rl.seconds_left == pytest.approx(4 * 2.0)  # four steps at two seconds
    assert rl.figures["reward"] == 0.6
    assert rl.spent is None
    assert (base.step, base.steps, base.seconds, base.seconds_left) == (4, 4, 3.5, None)
    assert base.spent.tokens == 2048
    assert (base.joules, base.joules_are_measured) == (3600.0, True)
    assert (rl.joules, rl.joules_are_measured) == (1800.0, False)
    assert (seen.joules, seen.joules_are_measured) == (5400.0, False)


def test_the_same_run_when_its_process_is_gone(tmp_path):
    seen = view(make_run(tmp_path / "a"))
    assert seen.status == "interrupted"
    assert seen.pid is None
    assert [stage.status for stage in seen.stages] == ["finished", "interrupted", "waiting"]
    assert seen.stages[1].seconds_left is None


def test_a_finished_run(tmp_path):
    seen = view(make_run(tmp_path / "a", finished=True))
    assert seen.status == "finished"
    assert seen.current.name == "eval-rl"
    assert seen.result.pass_at_1 == 0.75
    assert (seen.joules, seen.joules_are_measured) == (3600.0, True)  # that of rl was not recorded
    assert seen.changed_at == pytest.approx(os.stat(tmp_path / "a" / "ledger.json").st_mtime, abs=60)


def test_a_run_that_has_not_begun(tmp_path):
    run = RunDir(tmp_path)
    run.config_path.write_text("name: x\nstages: {base: {kind: pretrain}}\n")
    assert view(run).status == "waiting"
    assert view(run).current is None


DAMAGE = {
    "config.yaml": [
        *("", "[]", "stages: 3", "stages: {a: 3, 4: {}, '../..': {kind: x}}", "\t", "a: " + "[" * 3000),
        *("&a [*a]", "x" * 300_000),
    ],
    "ledger.json": ["{}", "[3]", '[{"stage": 1}]', "[", "[" * 5000, "", "null"],
    "summary.json": ['{"a": 1}', '["x"]', '[{"stage": "a", "new": 1}]'],
    "rl/manifest.json": ["{}", "[]", "{", '"\\ud800"'],
    "rl/metrics.jsonl": ["x\n", '{"step": "1", "loss": []}\n', '{"step": 1e400, "seconds": NaN}\n', "[]\n" * 10],
    "rl/clock.json": ["[]", '{"seconds": "x"}', '{"seconds": 1e999}', "{"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in DAMAGE.items() for text in texts])
def test_damaged_files_leave_the_rest(tmp_path, name, content):
    run = make_run(tmp_path / "a", finished=True)
    (run.path / name).write_text(content)
    seen = view(run)
    if name != "config.yaml":
        assert [stage.name for stage in seen.stages] == ["base", "rl", "eval-rl"]
        assert seen.stages[0].step == 4
    assert all(str(tmp_path) not in problem for problem in seen.problems)


def test_what_is_damaged_is_named(tmp_path):
    run = make_run(tmp_path / "a")
    run.ledger_path.write_text("{")
    assert view(run).problems == ("ledger.json: expected a JSON file; it is damaged or half-written",)


def test_a_stage_is_never_a_path(tmp_path):
    """A recipe from elsewhere names stages as it likes."""
    make_run(tmp_path / "secret", finished=True)
    run = make_run(tmp_path / "a", stages={"../secret/rl": {"kind": "grpo"}, "..": {}, "rl": {"kind": "grpo"}})
    assert [stage.name for stage in view(run).stages] == ["rl"]


def test_a_pipe_in_the_place_of_a_file_stops_nobody(tmp_path):
    run = make_run(tmp_path / "a")
    for path in (run.stage("rl").metrics, run.ledger_path):
        path.unlink()
        os.mkfifo(path)
    seen = view(run)
    assert [problem.partition(":")[0] for problem in seen.problems] == ["ledger.json", "rl/metrics.jsonl"]


def test_numbers_are_finite_and_no_booleans():
    row = json.loads('{"step": 3, "a": 1, "b": true, "c": "1", "d": NaN, "e": 1e999, "f": null, "g": -0.5}')
    row["huge"] = 10**400
    assert numbers(row) == {"a": 1.0, "g": -0.5}


def test_a_half_written_last_row_does_not_count(tmp_path):
    run = make_run(tmp_path / "a")
    write_lines(run.stage("rl").metrics, [{"step": 1, "seconds": 3.0}], torn='{"step": 2, "seco')
    with run.lock():
        rl = view(run).stages[1]
    assert (rl.step, rl.seconds_left) == (1, 27.0)
