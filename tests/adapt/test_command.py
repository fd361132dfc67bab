"""`octavo adapt` from outside, with a model of a minute's making: what it finds, runs, refuses and says."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from fake_server import Said, fake_server, reply
from octavo.cli import exit_code_of
from octavo.model.lora import merge_lora
from octavo.recipe import parse_recipe
from octavo.rundir import RunDir, read_jsonl
from octavo.weights.hf import load_model
from octavo.weights.lora import adapter_base, load_adapter

BASE = """
name: base
threads: 1
tasks:
  chain_sum: {kind: reasoning_gym, name: chain_sum, params: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}}
stages:
  tokenizer: {kind: tokenizer, vocab_size: 300, corpus: {kind: solutions, documents: 100}}
  base:
    kind: pretrain
    tokenizer: tokenizer
    corpus: {kind: solutions, documents: 100}
    model:
      {width: 16, layers: 1, ffn_width: 16, tie_embeddings: true, max_positions: 256,
       attention: {kind: gqa, heads: 2, kv_heads: 1, qkv_bias: true}}
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 256
    tokens_per_row: 128
    micro_batch_tokens: 256
    loop: {steps: 2}
result: base
"""
QUICK = ["--minutes", "0.2", "--threads", "1", "--set", "evaluation.problems=6", "--set", "evaluation.samples=1"]
QUICK += ["--set", "text-before.text={paths: [other.txt]}", "--set", "text-after.text={paths: [other.txt]}"]


SHORT = ["--set", "sft.loop.steps=2", "--set", "grpo.loop.steps=1", "--set", "grpo.rollouts.max_resamples=0"]


# The last weights, as two steps of a model that knows nothing make none better.
LAST = ["--set", "sft.validation=null", "--set", "sft.loop.evaluate_every_steps=null"]
LAST += ["--set", "grpo.validation=null", "--set", "grpo.loop.evaluate_every_steps=null"]
SPARSE = BASE.replace(
    "attention: {kind: gqa, heads: 2, kv_heads: 1, qkv_bias: true}",
    "attention: {kind: mla, heads: 2, kv_rank: 8, nope_dim: 8, rope_dim: 8, v_dim: 8},"
    " moe: {experts: 4, experts_per_token: 2, expert_width: 8}",
).replace("layers: 1", "layers: 2")


def octavo(capsys, *arguments):
    code = exit_code_of([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return pressed(tmp_path_factory.mktemp("model"), BASE)


def pressed(folder, recipe):
    (folder / "base.yaml").write_text(recipe)
    assert exit_code_of(["run", str(folder / "base.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, from which commands are given."""
    monkeypatch.chdir(tmp_path)
    sums = [(a, b) for a in range(1, 9) for b in range(1, 9)]
    rows = [{"question": f"{a} + {b} =", "answer": str(a + b), "solution": f"{a}+{b}={a + b}."} for a, b in sums]
    write("worked.jsonl", rows)
    write("answers.jsonl", [{key: row[key] for key in ("question", "answer")} for row in rows])
    write("chats.jsonl", [{"prompt": row["question"], "completion": row["solution"]} for row in rows])
    (tmp_path / "other.txt").write_text("Once upon a time there was a model that read.\n")
    return tmp_path


def write(name, rows):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def stages_of(folder):
    return list(yaml.safe_load((folder / "config.yaml").read_text())["stages"])


def test_check_looks_and_changes_nothing(capsys, model, here):
    code, out, err = octavo(capsys, "adapt", model, "worked.jsonl", "--check")
    assert err == ""
    assert code == 0
    assert "64 rows of question/solution/answer; 64 with an answer to check, 64 with a worked answer" in out
    assert "Questions: 41 to train on, 10 to choose the best weights by, 13 held out to measure by." in out
    assert "worked: verifier numeric; the answer is read as tags." in out
    assert "Method: sft on 41 worked answers, then grpo" in out
    assert "Minutes: 30 in all; at most 19.1 of sft and 6.38 of grpo" in out
    assert out.count("⟦") == 3
    assert "another gold" in out
    assert sorted(path.name for path in here.iterdir()) == ["answers.jsonl", "chats.jsonl", "other.txt", "worked.jsonl"]


def test_check_shows_bare_answers_as_they_are_learned(capsys, model, here):
    code, out, _ = octavo(capsys, "adapt", model, "answers.jsonl", "--check", "--method", "sft")
    assert code == 0
    assert "answers: verifier numeric; the answer is read as last_number." in out
    assert out.count("⟦") == 3
    assert "<answer>" not in out


def test_dry_run_is_a_recipe(capsys, model, here):
    code, out, _ = octavo(capsys, "adapt", model, "answers.jsonl", "--dry-run", "--lora", "--rank", "4")
    recipe = parse_recipe(out, "shown")
    assert code == 0
    assert recipe.stages["grpo"].dump()["lora"]["alpha"] == 8.0
    assert list(recipe.stages) == ["verifiers", "start", "before", "text-before", "grpo", "after", "text-after"]
    assert recipe.result == "grpo"


def test_worked_answers_then_reinforcement(capsys, model, here):
    quick = [
        *QUICK,
        "--set",
        "sft.loop.steps=4",
        "--set",
        "grpo.loop.steps=2",
        "--set",
        "grpo.rollouts.max_resamples=0",
    ]
    code, out, err = octavo(capsys, "adapt", model, "worked.jsonl", *quick, "--out", "run", "--json")
    assert err == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    found = events[-1]
    assert found["event"] == "outcome"
    assert found["questions"] == 6
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    assert found["difference"] == pytest.approx(found["after"] - found["before"])
    assert found["more_than_chance"] == (found["p_value"] < 0.05)
    run = RunDir(here / "run")
    assert stages_of(run.path) == ["verifiers", "start", "before", "text-before", "sft", "grpo", "after", "text-after"]
    assert "validation_accuracy" in read_jsonl(run.stage("grpo").metrics)[-1]
    assert json.loads(run.stage("verifiers").self_test.read_text())[0]["problems"] == 32
    # The same command again has nothing left to do, and says the same.
    code, out, _ = octavo(capsys, "adapt", model, "worked.jsonl", *quick, "--out", "run")
    assert code == 0
    assert "Finished before and unchanged: verifiers, start, before, text-before, sft, grpo, after, text-after." in out
    assert f"after       {found['after']:6.1%}" in out
    assert out.splitlines()[-1] == "Talk to it: octavo chat run"
    # It is an ordinary recipe.
    code, out, _ = octavo(capsys, "run", "run/config.yaml", "--out", "run", "--dry-run")
    assert code == 0
    assert [line.split(": ")[1] for line in out.splitlines()] == ["keep"] * 8


def test_adapters_lead_from_the_open_weights_to_the_result(capsys, model, here):
    """Reinforcement trains those of fine-tuning further, so that the last one alone makes the model."""
    lora = ["--lora", "--rank", "4"]
    code, out, err = octavo(capsys, "adapt", model, "worked.jsonl", *QUICK, *SHORT, *LAST, *lora, "--out", "run")
    assert (code, err) == (0, "")
    assert "The adapter, in peft's layout: run/grpo/adapter" in out
    start, result = load_model(here / "run/start/model"), load_model(here / "run/grpo/model")
    assert Path(adapter_base(here / "run/grpo/adapter")) == Path("run/start/model")
    load_adapter(here / "run/grpo/adapter", start)
    merge_lora(start)
    for name, tensor in start.state_dict().items():
        torch.testing.assert_close(tensor, result.state_dict()[name], rtol=0, atol=1e-6)


def test_experts_get_adapters_of_their_own(capsys, tmp_path_factory, here):
    sparse = pressed(tmp_path_factory.mktemp("sparse"), SPARSE)
    lora = ["--lora", "--rank", "4"]
    code, _, err = octavo(capsys, "adapt", sparse, "worked.jsonl", *QUICK, *SHORT, *LAST, *lora, "--out", "run")
    assert (code, err) == (0, "")
    start, result = load_model(here / "run/start/model"), load_model(here / "run/grpo/model")
    load_adapter(here / "run/grpo/adapter", start)
    merge_lora(start)
    before = load_model(here / "run/start/model").state_dict()
    experts = [name for name, tensor in before.items() if tensor.dim() == 3]
    assert experts
    for name, tensor in start.state_dict().items():
        torch.testing.assert_close(tensor, result.state_dict()[name], rtol=0, atol=1e-6)
        if name in experts:
            assert all((tensor != before[name]).flatten(1).any(1)), name  # every expert was taught


def test_a_teacher_of_this_machine_says_how_likely_each_token_was(capsys, model, here):
    """On-policy distillation from itself: there is nothing to learn, so the loss is nothing."""
    quick = [*QUICK, "--set", "on-policy.loop.steps=2", "--set", "on-policy.prompts_per_step=4"]
    teacher = ["--method", "on-policy", "--teacher", model]
    code, _, err = octavo(capsys, "adapt", model, "answers.jsonl", *quick, *teacher, "--out", "run")
    assert (code, err) == (0, "")
    assert "teacher" in stages_of(here / "run")
    rows = read_jsonl(here / "run/on-policy/metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(0, abs=1e-5)


def test_a_teacher_of_this_machine_that_is_never_right(capsys, model, here):
    quick = [*QUICK, "--set", "samples.problems=4", "--set", "samples.samples=1", "--set", "distill.loop.steps=1"]
    teacher = ["--method", "distill", "--teacher", model]
    code, _, err = octavo(capsys, "adapt", model, "answers.jsonl", *quick, *teacher, "--out", "run")
    assert code == 3
    assert "none" in err


def test_a_server_teaches_and_may_go_away(capsys, model, here, monkeypatch):
    """What it said before it went is kept: the same command goes on from there."""
    monkeypatch.setattr("octavo.tasks.server.exchange.asyncio.sleep", no_waiting)
    with fake_server() as server:
        teacher = ["--teacher", server.url, "--teacher-model", "big", "--method", "distill"]
        quick = [*QUICK, "--set", "samples.problems=40", "--set", "samples.samples=1", "--set", "distill.loop.steps=2"]
        command = ["adapt", model, "answers.jsonl", *quick, *teacher, "--out", "run"]
        server.script = lambda number, body: Said("gone", 503) if number >= 20 else solved(body)
        code, _, err = octavo(capsys, *command)
        assert code == 3
        assert "replies are kept, and the same command goes on from there" in err.splitlines()[-1]
        asked = {json.dumps(body) for body in server.bodies[:16]}
        server.script = lambda number, body: solved(body)
        before = len(server.bodies)
        assert octavo(capsys, *command)[0] == 0
        assert not asked & {json.dumps(body) for body in server.bodies[before:]}
    samples = read_jsonl(here / "run/samples/samples.jsonl")
    assert len(samples) == 40
    assert samples[0]["messages"][1]["content"].startswith("Let me see: it is ")


def solved(body):
    a, b = re.findall(r"\d+", body["messages"][-1]["content"])
    return reply(f"Let me see: it is {int(a) + int(b)}")


async def no_waiting(seconds):
    pass


@pytest.mark.parametrize(
    ("rows", "arguments", "said"),
    [
        ([{"question": f"{n}?", "answer": "7"} for n in range(30)], [], "all 30 answers are '7'"),
        ([{"question": f"{n}?", "answer": str(n)} for n in range(12)], [], "12 different questions are too few"),
        (
            [{"question": "a " * 300 + f"{n}", "answer": str(n)} for n in range(30)],
            [],
            "longer than the context of 256",
        ),
        ([{"question": f"{n}?", "anwser": str(n)} for n in range(30)], [], "did you mean answer?"),
        (None, ["--verifier", "numerc"], "no verifier 'numerc' (did you mean numeric?)"),
        (None, ["--verifier", "no.py:score"], "no such file no.py"),
        (None, ["--verifier", "x*numeric"], "expected WEIGHT*VERIFIER, as 0.8*numeric, got 'x*numeric'"),
        (None, ["--verifier", "{kind: numeric, tolerance: -1}"], "greater than or equal to 0"),
        (None, ["--method", "distill"], "--method distill needs a --teacher"),
        (None, ["--teacher", "x", "--method", "sft"], "--teacher goes with --method distill or on-policy, got sft"),
        (None, ["--teacher", "http://127.0.0.1:1/v1"], "needs a --teacher-model"),
        (None, ["--column", "question"], "expected ROLE=NAME"),
        (None, ["--set", "grpo.loop.stepz=1"], "unknown key stages.grpo.loop.stepz (did you mean steps?)"),
        (None, ["chain_sum"], "give either files or reasoning-gym tasks, not both"),
        (None, ["--lora", "--rank", "0"], "--rank"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, model, here, rows, arguments, said):
    write("mine.jsonl", rows or [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(30)])
    code, out, err = octavo(capsys, "adapt", model, "mine.jsonl", *arguments, "--check")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_verifier_that_can_be_fooled_is_refused_before_anything_is_trained(capsys, model, here):
    (here / "lax.py").write_text("def score(question, answer, gold):\n    return gold in answer\n")
    code, _, err = octavo(capsys, "adapt", model, "answers.jsonl", *QUICK, "--verifier", "lax.py:score", "--out", "run")
    assert code == 2
    assert "the gold answer in a longer text must not score full" in err
    assert "question '" in err
    assert len(err.splitlines()) == 1
    assert not (here / "run" / "start").exists()


def test_worked_answers_alone_are_imitated(capsys, model, here):
    code, out, err = octavo(capsys, "adapt", model, "chats.jsonl", *QUICK, "--set", "sft.loop.steps=2", "--out", "run")
    assert (code, err) == (0, "")
    assert "Method: sft, as there are worked answers, and nothing to check others by." in out
    assert stages_of(here / "run") == ["start", "before", "text-before", "sft", "after", "text-after"]


def test_a_generator_poses_problems_without_end(capsys, model, here):
    code, out, _ = octavo(capsys, "adapt", model, "chain_sum:max_terms=2", "--check")
    assert code == 0
    assert "Questions: without end to train on" in out
    assert "Method: sft on worked answers, then grpo" in out
