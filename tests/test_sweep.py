import io
import json

import pytest

from octavo.console import JsonDisplay
from octavo.errors import ConfigError
from octavo.rundir import RunDir
from octavo.sweep import SweepPlan, run_sweep
from octavo.sweep_result import SweepResult
from tiny_recipe import RECIPE


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)


def sweep(recipe, folder, text="tuned.loop.steps=1,3", seeds=2):
    shown = io.StringIO()
    result = run_sweep(recipe, [], SweepPlan.parse(text, seeds), folder, JsonDisplay(shown))
    events = [json.loads(line) for line in shown.getvalue().splitlines()]
    return result, [event["stage"] for event in events if event["event"] == "stage_started"]


def test_runs_share_what_is_above_the_difference_and_are_not_made_twice(recipe, tmp_path):
    result, started = sweep(recipe, tmp_path / "sweep")
    # Two seeds: each makes everything once, and the second value only what differs.
    assert started == ["tokenizer", "guess", "base", "tuned", "eval-tuned"] * 2 + ["tuned", "eval-tuned"] * 2
    assert result.stage == "eval-tuned"
    assert [variant.value for variant in result.variants] == ["1", "3"]
    assert all(len(variant.by_seed) == 2 for variant in result.variants)
    assert result.variants[0].difference is None
    assert result.variants[1].difference == pytest.approx(
        result.variants[1].pass_at_1 - result.variants[0].pass_at_1, abs=1e-9
    )
    saved = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert SweepResult.parse(saved, "sweep.json") == result
    assert (tmp_path / "sweep" / "sweep.md").read_text() == result.markdown()
    assert (tmp_path / "sweep" / "3" / "seed-1" / "tuned" / "model" / "config.json").is_file()
    ledger = json.loads((tmp_path / "sweep" / "3" / "seed-1" / "ledger.json").read_text())
    assert [entry["stage"] for entry in ledger] == ["tokenizer", "guess", "base", "tuned", "eval-tuned"]

    again, started = sweep(recipe, tmp_path / "sweep")
    assert started == []
    assert again == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tuned.loop.steps", "expected KEY=VALUE,VALUE"),
        ("tuned.loop.steps=1", "at least two values"),
        ("tuned.loop.steps=1,1", "all different"),
        ("seed=1,2", "use --seeds"),
    ],
)
def test_bad_sweeps_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        SweepPlan.parse(text, 3)


def test_commas_inside_brackets_belong_to_a_value():
    assert SweepPlan.parse("a.b=[1, 2],{c: 3, d: 4}, 5", 1).values == ("[1, 2]", "{c: 3, d: 4}", "5")


def test_an_unknown_key_is_refused_before_anything_runs(recipe, tmp_path):
    with pytest.raises(ConfigError, match="tuned"):
        sweep(recipe, tmp_path / "sweep", "tunned.loop.steps=1,2")
    assert not (tmp_path / "sweep").exists()


def test_what_is_measured_on_other_problems_is_refused_before_anything_runs(recipe, tmp_path):
    with pytest.raises(ConfigError, match="with 15 other held-out problems are drawn than with 20"):
        sweep(recipe, tmp_path / "sweep", "tasks.gcd.params.max_value=20,15")
    assert not (tmp_path / "sweep").exists()


def test_the_folder_of_a_single_run_is_refused(recipe, tmp_path):
    RunDir(tmp_path / "run").path.mkdir()
    RunDir(tmp_path / "run").config_path.write_text("name: tiny")
    with pytest.raises(ConfigError, match="folder of a single run"):
        sweep(recipe, tmp_path / "run")


def test_a_dry_run_says_what_is_made_once_and_linked_elsewhere(recipe, tmp_path):
    shown = io.StringIO()
    plan = SweepPlan.parse("tuned.loop.steps=1,3", 1)
    assert run_sweep(recipe, [], plan, tmp_path / "sweep", JsonDisplay(shown), dry_run=True) is None
    notes = [json.loads(line)["text"] for line in shown.getvalue().splitlines()]
    assert notes == [
        f"Run 1 of 2: tuned.loop.steps=1, seed 0, in {tmp_path / 'sweep' / '1' / 'seed-0'}",
        *(f"{stage}: make" for stage in ("tokenizer", "guess", "base", "tuned", "eval-tuned")),
        f"Run 2 of 2: tuned.loop.steps=3, seed 0, in {tmp_path / 'sweep' / '3' / 'seed-0'}",
        *(f"{stage}: link: another run of the sweep makes it" for stage in ("tokenizer", "guess", "base")),
        *(f"{stage}: make" for stage in ("tuned", "eval-tuned")),
    ]
    assert not (tmp_path / "sweep").exists()
