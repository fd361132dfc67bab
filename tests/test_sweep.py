import io
import json

import pytest
from rich.console import Console

from octavo.console import JsonDisplay
from octavo.errors import ConfigError
from octavo.sweep import SweepPlan, SweepResult, Variant, print_sweep, run_sweep
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


def test_the_table_shows_the_spread_of_seeds():
    first = Variant(value="dapo", seeds=(0, 1), pass_at_1=0.5, low=0.4, high=0.6, by_seed=(0.45, 0.55))
    second = first.model_copy(
        update={"value": "grpo", "difference": 0.1, "difference_low": 0.02, "difference_high": 0.18, "p_value": 0.013}
    )
    shown = io.StringIO()
    result = SweepResult(recipe="r", key="zero.policy.kind", stage="eval-zero", problems=64, variants=(first, second))
    print_sweep(result, Console(file=shown, width=120))
    lines = shown.getvalue().splitlines()
    assert "64 held-out problems" in lines[0]
    assert lines[2].split() == ["dapo", "2", "50.0%", "40.0", "to", "60.0%", "45.0%", "55.0%", "-", "-", "-"]
    assert "+10.0%" in lines[3]
    assert "0.013" in lines[3]
