import io
import json

import pytest

from octavo.cli import exit_code_of
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


def test_what_no_evaluation_depends_on_is_refused(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"none of the evaluations \(eval-tuned\) depends on it"):
        sweep(recipe, tmp_path / "sweep", "description=a,b")


def test_the_evaluation_that_is_compared_is_one_that_differs(tmp_path):
    path = tmp_path / "tiny.yaml"
    text = RECIPE.replace(
        "  eval-tuned:",
        "  side: {kind: sft, model: base, corpus: {kind: solutions, documents: 30},\n"
        "    optimizer: {learning_rate: 0.003}, tokens_per_step: 256, tokens_per_row: 128,\n"
        "    micro_batch_tokens: 256, loop: {steps: 1}}\n"
        "  eval-side: {kind: eval, row: side, model: side}\n"
        "  eval-tuned:",
    )
    path.write_text(text)
    result, started = sweep(str(path), tmp_path / "sweep", "side.loop.steps=1,2", seeds=1)
    assert result.stage == "eval-side"
    assert started.count("tuned") == 1


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


def octavo(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    code = exit_code_of(["run", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_on_the_command_line(recipe, tmp_path, capsys):
    folder = tmp_path / "sweep"
    asked = (recipe, "--sweep", "tuned.loop.steps=1,2", "--out", folder)
    code, out, err = octavo(capsys, *asked)
    assert (code, err) == (0, "")
    assert f"Run 2 of 2: tuned.loop.steps=2, seed 0, in {folder / '2' / 'seed-0'}" in out
    table = out[out.index("tuned.loop.steps, measured by eval-tuned on 6 held-out problems") :].splitlines()
    assert [row.split()[:2] for row in table[2:4]] == [["1", "1"], ["2", "1"]]
    assert table[-1] == f"The same table: {folder / 'sweep.md'}; as data: {folder / 'sweep.json'}"

    code, out, err = octavo(capsys, *asked, "--json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert not [event for event in events if event["event"] == "stage_started"]
    assert events[-1] == {"event": "sweep_finished", **json.loads((folder / "sweep.json").read_text())}


def test_a_dry_run_on_the_command_line_makes_nothing(recipe, tmp_path, capsys):
    asked = (recipe, "--sweep", "tuned.loop.steps=1,2", "--seeds", 2, "--out", tmp_path / "sweep", "--dry-run")
    code, out, _ = octavo(capsys, *asked)
    assert code == 0
    assert out.count("base: make") == 2
    assert out.count("base: link") == 2
    assert out.count("tuned: make") == 8  # its evaluation too
    assert not (tmp_path / "sweep").exists()


def test_the_folder_of_a_sweep_is_named_after_the_recipe(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = octavo(capsys, recipe, "--sweep", "tuned.loop.steps=1,2", "--dry-run")
    assert code == 0
    assert "in runs/tiny-sweep/1/seed-0" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "2"), "--seeds needs --sweep"),
        (("--sweep", "tuned.loop.steps=1,2", "--fresh"), "give it another folder with --out"),
        (("--sweep", "tuned.loop.steps=1,2", "--seeds", "0"), "--seeds"),
        (("--sweep", "tuned.loop.stepz=1,2"), "unknown key stages.tuned.loop.stepz (did you mean steps?)"),
        (("--sweep", "tuned.loop.steps=1,few"), "stages.tuned.loop.steps: should be a valid integer"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(recipe, tmp_path, capsys, arguments, said):
    code, _, err = octavo(capsys, recipe, "--out", tmp_path / "sweep", *arguments)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "sweep").exists()
