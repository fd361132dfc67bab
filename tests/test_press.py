import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from octavo.console import JsonDisplay
from octavo.errors import ConfigError
from octavo.press import Press
from octavo.recipe import parse_recipe
from octavo.rundir import RunDir
from octavo.weights.hf import load_model
from tiny_recipe import RECIPE

STAGES = list(yaml.safe_load(RECIPE)["stages"])


def press(folder: Path, *overrides: str, fresh: bool = False) -> tuple[Press, io.StringIO]:
    shown = io.StringIO()
    return Press(parse_recipe(RECIPE, "tiny", overrides), folder, JsonDisplay(shown), fresh), shown


def run(folder: Path, *overrides: str, fresh: bool = False) -> list[dict]:
    """Run the recipe; return what the display was told."""
    made, shown = press(folder, *overrides, fresh=fresh)
    made.run()
    return [json.loads(line) for line in shown.getvalue().splitlines()]


def started(events: list[dict]) -> list[str]:
    return [event["stage"] for event in events if event["event"] == "stage_started"]


def notes(events: list[dict]) -> str:
    return "\n".join(event["text"] for event in events if event["event"] == "note")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    threads = torch.get_num_threads()
    assert started(run(folder)) == STAGES
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_folder_discloses_the_run(finished):
    run_dir = RunDir(finished)
    recipe = parse_recipe(RECIPE, "tiny")
    assert yaml.safe_load(run_dir.config_path.read_text()) == recipe.dump()
    assert [entry.stage for entry in run_dir.read_ledger()] == STAGES
    base = next(entry for entry in run_dir.read_ledger() if entry.stage == "base")
    assert base.tokens == 6 * 256
    assert base.flops > 6 * base.tokens  # at the very least
    assert base.seconds > 0
    assert base.peak_memory_bytes > 50e6
    rows = {row.stage: row for row in run_dir.read_summary()}
    assert list(rows) == ["guess", "tuned"]
    assert rows["guess"].pass_at_1 is not None
    assert rows["tuned"].tokens == 3 * 256
    manifest = run_dir.stage("tuned").read_manifest()
    made = run_dir.stage("base").read_manifest()
    assert manifest.status == "finished"
    assert manifest.inputs == {"base/model": made.outputs["model"]}
    assert manifest.seed == recipe.stage_seed("tuned")
    assert not run_dir.stage("base").state.exists()
    assert len(run_dir.stage("base").metrics.read_text().splitlines()) == 6


def test_what_is_finished_is_kept(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("model.safetensors")}
    events = run(copy)
    assert started(events) == []
    assert f"Finished before and unchanged: {', '.join(STAGES)}." in notes(events)
    assert events[-1]["event"] == "finished"
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("model.safetensors")} == before


def test_a_change_runs_what_depends_on_it_and_keeps_the_old(copy):
    old = load_model(copy / "tuned" / "model").state_dict()
    events = run(copy, "tuned.loop.steps=4")
    assert started(events) == ["tuned", "eval-tuned"]
    assert "tuned: loop.steps 3 -> 4; runs again, and so does what depends on it: eval-tuned." in notes(events)
    kept = next((copy / "old").glob("tuned-*"))
    assert f"kept in {kept}" in notes(events)
    for name, tensor in load_model(kept / "model").state_dict().items():
        assert torch.equal(tensor, old[name])
    assert yaml.safe_load((copy / "config.yaml").read_text())["stages"]["tuned"]["loop"]["steps"] == 4


def test_a_dry_run_tells_and_changes_nothing(copy):
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    made, shown = press(copy, "tuned.loop.steps=4")
    made.show_plan()
    text = [json.loads(line)["text"] for line in shown.getvalue().splitlines()]
    assert text[-2:] == ["tuned: make: loop.steps 3 -> 4", "eval-tuned: make: another model"]
    assert text[0] == "tokenizer: keep"
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*")) == before


def test_fresh_runs_all_again_with_the_same_result(copy):
    old = (copy / "tuned" / "model" / "model.safetensors").read_bytes()
    assert started(run(copy, fresh=True)) == STAGES
    assert (copy / "tuned" / "model" / "model.safetensors").read_bytes() == old


def test_an_altered_model_is_found_and_made_again(copy):
    path = copy / "base" / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    events = run(copy)
    assert started(events) == ["base", "tuned", "eval-tuned"]
    assert "base/model does not match its checksum" in notes(events)
    content[-1] ^= 1
    assert path.read_bytes() == content


def test_an_unreadable_manifest_is_put_aside(copy):
    (copy / "tuned" / "manifest.json").write_text("{")
    events = run(copy)
    assert started(events) == ["tuned", "eval-tuned"]
    assert (copy / "old" / "tuned-unreadable" / "model").is_dir()


class StoppedError(Exception):
    """Stands for a power cut."""


def interrupt(folder: Path, monkeypatch, at_step: int, *overrides: str) -> None:
    """Run until optimizer step `at_step` of `base`, then stop as if the power had gone."""
    made, _ = press(folder, *overrides)

    def progress(progress):
        if progress.stage == "base" and progress.step == at_step:
            raise StoppedError

    monkeypatch.setattr(made.display, "progress", progress, raising=False)
    with pytest.raises(StoppedError):
        made.run()


def test_an_interrupted_stage_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(folder, monkeypatch, 3)
    assert (folder / "base" / "state" / "step-000002").is_dir()
    events = run(folder)
    assert started(events) == ["base", "tuned", "eval-tuned"]
    assert "base was interrupted; it goes on where it was." in notes(events)
    steps = [event["step"] for event in events if event["event"] == "progress" and event["stage"] == "base"]
    assert steps == [3, 4, 5, 6]
    logged = [json.loads(line)["step"] for line in (folder / "base" / "metrics.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3, 4, 5, 6]
    for stage in ("base", "tuned"):
        model = Path(stage, "model", "model.safetensors")
        assert (folder / model).read_bytes() == (finished / model).read_bytes()


def test_a_changed_stage_does_not_go_on_from_old_state(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(folder, monkeypatch, 3)
    events = run(folder, "base.optimizer.learning_rate=0.001")
    steps = [event["step"] for event in events if event["event"] == "progress" and event["stage"] == "base"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_checkpoints_of_an_interrupted_stage_are_put_aside_and_can_be_gone_on_from(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(folder, monkeypatch, 3)
    events = run(folder, "base.optimizer.learning_rate=0.001")
    (kept,) = (folder / "old").glob("base-*-unfinished")
    assert f"The unfinished work of base is kept in {kept}" in notes(events)
    shutil.rmtree(folder / "base")
    kept.rename(folder / "base")
    events = run(folder)
    steps = [event["step"] for event in events if event["event"] == "progress" and event["stage"] == "base"]
    assert steps == [3, 4, 5, 6]
    model = Path("tuned", "model", "model.safetensors")
    assert (folder / model).read_bytes() == (finished / model).read_bytes()


def test_an_interrupted_stage_without_checkpoints_leaves_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupt(folder, monkeypatch, 1)
    run(folder, "base.optimizer.learning_rate=0.001")
    assert not (folder / "old").exists()


def test_two_processes_do_not_write_one_run(copy):
    with RunDir(copy).lock(), pytest.raises(ConfigError, match="another process is writing this run"):
        run(copy)
