"""The command line from outside: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from octavo.cli import exit_code_of
from octavo.rundir import RunDir
from octavo.tasks.gym import ReasoningGymTask

RECIPE = """
name: tiny
threads: 1
tasks:
  gcd: {kind: reasoning_gym, name: gcd, params: {max_value: 20}}
evaluation: {problems: 4, samples: 2, max_tokens: 8}
stages:
  tokenizer: {kind: tokenizer, vocab_size: 280, corpus: {kind: solutions, documents: 30}}
  base:
    kind: pretrain
    tokenizer: tokenizer
    corpus: {kind: solutions, documents: 30}
    model:
      {width: 16, layers: 1, ffn_width: 16, tie_embeddings: true, max_positions: 256,
       attention: {kind: gqa, heads: 2, kv_heads: 1, qkv_bias: true}}
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 256
    tokens_per_row: 128
    micro_batch_tokens: 256
    loop: {steps: 2}
  eval-base: {kind: eval, row: base, model: base}
result: base
"""


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run_folder(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert exit_code_of(["run", str(recipe), "--out", str(folder)]) == 0
    return folder


def octavo(capsys, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    code = exit_code_of([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_help_and_version_come_without_torch():
    script = (
        "import sys, octavo.cli; code = octavo.cli.exit_code_of(['--help']); sys.exit(code or 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(verb in shown.stdout for verb in ("run", "chat", "eval", "doctor"))


def test_version(capsys):
    assert octavo(capsys, "--version") == (0, "octavo 0.1.0\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pres"], "No such command 'pres'"),
        (["run"], "Missing argument"),
        (["run", "smoke", "--outt", "x"], "No such option: --outt"),
        (["chat", "x", "--temperature", "hot"], "--temperature"),
        (["chat", "x", "--json"], "--json needs --prompt"),
        (["run", "smok"], "no recipe is named 'smok' and no such file exists (did you mean smoke?)"),
        (["run", "smoke", "--set", "base"], "expected key.subkey=value"),
        (["run", "smoke", "--set", "base.lop.steps=1"], "unknown key stages.base.lop (did you mean loop?)"),
        (["run", "smoke", "--set", "base.loop.steps=few"], "stages.base.loop.steps: should be a valid integer"),
        (["run", "smoke", "--set", "student-base.model.width=49"], "attention.heads (4) must divide width (49)"),
        (
            ["run", "smoke", "--set", "base.model.moe.experts_per_token=33"],
            "experts_per_token (33) exceeds experts (32)",
        ),
        (["run", "smoke", "--set", "tasks.chain_sum.name=chain_sun"], "'chain_sun' (did you mean chain_sum?)"),
        (["run", "smoke", "--set", "tasks.chain_sum.params.max_trems=3"], "max_trems (did you mean max_terms?)"),
        (["run", "smoke", "--threads", "0"], "greater than or equal to 1"),
        (["chat", "no/such/folder"], "no/such/folder: no such folder"),
        (["eval", "no/such/folder"], "no/such/folder: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = octavo(capsys, *arguments)
    assert code == 2
    assert said in err
    assert err.startswith("octavo: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the corpus is empty"),
        (b"a", "the corpus has too little text for a vocab_size of 280"),
        (b"caf\xe9", "not UTF-8 at byte 3"),
        (None, "no such file or folder"),
    ],
    ids=["empty", "one byte", "not UTF-8", "missing"],
)
def test_bad_corpora_are_one_line_and_exit_code_2(capsys, recipe, tmp_path, content, said):
    corpus = tmp_path / "corpus.txt"
    if content is not None:
        corpus.write_bytes(content)
    override = f"tokenizer.corpus={{kind: files, paths: ['{corpus}']}}"
    code, _, err = octavo(capsys, "run", recipe, "--out", tmp_path / "run", "--set", override)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_verifier_that_raises_is_no_score_and_nothing_is_lost(capsys, recipe, run_folder, monkeypatch):
    def score(self, problem, answer):
        raise RuntimeError("out of\nchalk")

    monkeypatch.setattr(ReasoningGymTask, "score", score)
    # An untrained model seldom gives an answer at all; here every text is one.
    monkeypatch.setattr("octavo.tasks.asking.parse_reply", lambda text: type("Reply", (), {"answer": "1"}))
    code, _, err = octavo(capsys, "eval", run_folder)
    assert code == 2
    assert "nothing could be graded; first failure: error: gcd: RuntimeError: out of chalk" in err
    assert len(err.splitlines()) == 1
    code, _, err = octavo(capsys, "run", recipe, "--out", run_folder, "--set", "evaluation.seed=1")
    assert (code, len(err.splitlines())) == (2, 1)
    monkeypatch.undo()
    code, out, _ = octavo(capsys, "run", recipe, "--out", run_folder)
    assert code == 0
    assert "Finished before and unchanged: tokenizer, base." in out


def test_a_verifier_that_raises_now_and_then_is_told(capsys, recipe, run_folder, monkeypatch):
    calls = iter(range(1_000_000))

    def score(self, problem, answer):
        if next(calls) % 2:
            raise RuntimeError("out of chalk [again]")
        return 1.0

    monkeypatch.setattr(ReasoningGymTask, "score", score)
    monkeypatch.setattr("octavo.tasks.asking.parse_reply", lambda text: type("Reply", (), {"answer": "1"}))
    code, out, _ = octavo(capsys, "eval", run_folder)
    assert code == 0
    assert (
        "samples could not be graded and are left out; the first: error: gcd: RuntimeError: out of chalk ["
        in " ".join(out.split())
    )
    code, out, _ = octavo(capsys, "run", recipe, "--out", run_folder, "--set", "evaluation.seed=2")
    assert code == 0
    assert out.count("warning: an answer could not be graded (gcd: RuntimeError: out of chalk [again])") == 1


def test_a_bug_is_exit_code_1_with_a_line_that_says_so(capsys, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("octavo.recipe.load_recipe", broken)
    code, _, err = octavo(capsys, "run", "smoke")
    assert code == 1
    assert err.startswith("octavo: ZeroDivisionError: division by zero (a bug of Octavo")
    assert len(err.splitlines()) == 1
    code, _, err = octavo(capsys, "run", "smoke", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_user_error_shows_its_traceback_only_with_debug(capsys):
    assert "Traceback" not in octavo(capsys, "run", "smok")[2]
    code, _, err = octavo(capsys, "run", "smok", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_interruption_says_how_to_go_on(capsys, recipe, tmp_path, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("octavo.press.Press.run", interrupted)
    monkeypatch.setattr(sys, "argv", ["octavo", "run", "my recipe.yaml"])
    code, _, err = octavo(capsys, "run", recipe, "--out", tmp_path)
    assert code == 130
    assert err == "Interrupted. To go on where it was: octavo run 'my recipe.yaml'\n"


def test_a_full_disk_is_exit_code_3(capsys, recipe, tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("octavo.storage.write_all", full)
    code, _, err = octavo(capsys, "run", recipe, "--out", tmp_path / "run")
    assert code == 3
    assert "No space left on device; free some space and run again" in err
    assert len(err.splitlines()) == 1


def test_run_as_json_is_events_only(capsys, recipe, run_folder):
    code, out, err = octavo(capsys, "run", recipe, "--out", run_folder, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert events[-1]["event"] == "finished"
    assert [row["stage"] for row in events[-1]["rows"]] == ["base"]
    assert events[-1]["rows"] == json.loads(RunDir(run_folder).summary_path.read_text())


def test_dry_run_makes_nothing(capsys, recipe, tmp_path):
    code, out, _ = octavo(capsys, "run", recipe, "--out", tmp_path / "run", "--dry-run")
    assert (code, out) == (0, "tokenizer: make\nbase: make\neval-base: make\n")
    assert not (tmp_path / "run").exists()


def test_chat_as_json_is_one_object(capsys, run_folder):
    question = ["chat", run_folder, "-p", "What is 2 + 3?", "--max-tokens", "5"]
    code, out, err = octavo(capsys, *question, "--json", "--seed", "3")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said.keys() == {"reasoning", "answer", "completion_tokens", "finish_reason"}
    assert said["completion_tokens"] <= 5
    assert octavo(capsys, *question, "--json", "--seed", "3")[1] == out
    code, out, _ = octavo(capsys, *question)
    assert code == 0
    assert "\x1b" not in out
    code, out, _ = octavo(capsys, *question, "--json", "--quantize", "int8")
    assert (code, json.loads(out).keys()) == (0, said.keys())
    code, _, err = octavo(capsys, *question, "--quantize", "int4")
    assert (code, "int4" in err, "int8" in err) == (2, True, True)


def test_eval_of_a_run_takes_its_tasks(capsys, run_folder):
    code, out, _ = octavo(capsys, "eval", run_folder, "--json")
    result = json.loads(out)
    assert code == 0
    assert list(result["tasks"]) == ["gcd"]
    assert result["config"]["samples"] == 2
    scores = result["overall"]
    assert scores["low"] <= scores["pass_at_1"] <= scores["high"]


def test_eval_of_named_tasks(capsys, run_folder, tmp_path):
    questions = tmp_path / "mine.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n}?", "answer": str(n)}) + "\n" for n in range(40)))
    tasks = ["chain_sum:min_terms=2,max_terms=2", questions]
    arguments = ["--problems", "6", "--samples", "1", "--max-tokens", "4", "--temperature", "0"]
    code, out, _ = octavo(capsys, "eval", run_folder / "base" / "model", *tasks, *arguments, "--json")
    result = json.loads(out)
    assert code == 0
    assert list(result["tasks"]) == ["chain_sum:min_terms=2,max_terms=2", "mine"]
    assert result["config"] == result["config"] | {"problems": 6, "samples": 1, "max_tokens": 4, "temperature": 0.0}
    code, out, _ = octavo(capsys, "eval", run_folder, *arguments)
    assert code == 0
    assert "1 samples a problem" in out
    code, out, _ = octavo(capsys, "eval", run_folder, *arguments, "--quantize", "int8")
    assert (code, "Weights were rounded to int8." in out) == (0, True)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("chain_sun", "no dataset 'chain_sun' (did you mean chain_sum?)"),
        ("chain_sum:max_terms", "expected chain_sum:key=value,key=value, got 'max_terms'"),
        ("chain_sum:max_trems=2", "unknown parameter max_trems (did you mean max_terms?)"),
        ("nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_eval_of_bad_tasks(capsys, run_folder, task, said):
    code, _, err = octavo(capsys, "eval", run_folder, task)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_eval_of_a_model_alone_needs_a_task(capsys, run_folder, tmp_path):
    (tmp_path / "model").symlink_to(run_folder / "base" / "model")
    code, _, err = octavo(capsys, "eval", tmp_path / "model")
    assert code == 2
    assert "name a task" in err


def test_doctor_measures(capsys):
    code, out, _ = octavo(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0
    # How fast a machine is that does ten other things is nobody's business.
    assert found["float32_gflops"] > 0
    assert found["bandwidth_gb_per_second"] > 0
    assert found["dtype"] in ("float32", "bfloat16")
    assert {recipe["recipe"] for recipe in found["recipes"]} >= {"smoke", "r1-mini"}
    assert all(recipe["pretraining_flops"] > 1e9 for recipe in found["recipes"])
