"""The commands of the examples that adapt a model, as their run.sh has them, with a model of a moment's making."""

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from octavo.cli import exit_code_of
from octavo.rundir import RunDir
from tiny_recipe import RECIPE

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = ["--minutes", "0.1", "--threads", "1", "--max-tokens", "8"]
QUICK += ["--set", "sft.validation.problems=4", "--set", "sft.loop.steps=2", "--set", "sft.loop.evaluate_every_steps=2"]
QUICK += ["--set", "text-before.text={paths: [other.txt]}", "--set", "text-after.text={paths: [other.txt]}"]
SMALL = ["--train", "60", "--held-out", "20"]
ANSWERS = {"nairobi": "tags", "stockholm": "reply"}


def command_of(name: str) -> list[str]:
    """The arguments of octavo in an example's run.sh, without those that its user adds."""
    script = (EXAMPLES / name / "run.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in script.splitlines() if line.startswith("octavo ")]
    return [word for word in shlex.split(line)[1:] if word != "$@"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.yaml").write_text(RECIPE)
    threads = torch.get_num_threads()
    assert exit_code_of(["run", str(folder / "tiny.yaml"), "--out", str(folder / "run")]) == 0
    torch.set_num_threads(threads)
    return folder / "run" / "base"


@pytest.mark.parametrize(("name", "generator"), [("nairobi", "questions.py"), ("stockholm", "invoices.py")])
def test_the_command_in_small(name, generator, generate, model, tmp_path, monkeypatch, capsys):
    folder = generate(f"{name}/{generator}", SMALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "runs" / "data").mkdir(parents=True)
    (tmp_path / "runs" / "data" / name).symlink_to(folder)
    (tmp_path / "other.txt").write_text("Once upon a time there was a model that read.\n")
    capsys.readouterr()
    command = [str(model) if word == "smollm2-135m" else word for word in command_of(name)]
    threads = torch.get_num_threads()
    code = exit_code_of([*command, *QUICK])
    torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "Right answers on 20 held-out questions" in out
    run = RunDir(tmp_path / "runs" / name)
    recipe = yaml.safe_load(run.config_path.read_text())
    assert recipe["asking"]["reading"] == ANSWERS[name]
    assert recipe["result"] == "sft"
    assert json.loads(run.stage("after").evaluation.read_text())["overall"]["problems"] == 20
