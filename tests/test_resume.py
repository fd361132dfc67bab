"""kill -9 at random points of every stage, then the same command: the same weights, bit for bit."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from octavo.cli import exit_code_of
from octavo.disclosure import sha256_of
from octavo.recipe import load_recipe
from octavo.rundir import RunDir, read_jsonl

TRAINING = """
    optimizer: {learning_rate: 0.02}
    tokens_per_step: 256
    tokens_per_row: 64
    micro_batch_tokens: 128
"""
RECIPE = f"""
name: tiny
threads: 1
tasks: {{yes: {{kind: jsonl, path: QUESTIONS}}}}
evaluation: {{problems: 4, samples: 2, max_tokens: 24}}
stages:
  tokenizer: {{kind: tokenizer, vocab_size: 272, corpus: &text {{kind: files, paths: [SOLUTIONS]}}}}
  base:
    kind: pretrain
    tokenizer: tokenizer
    corpus: *text
    model:
      width: 16
      layers: 2
      ffn_width: 32
      max_positions: 128
      mtp_layers: 1
      attention: {{kind: mla, heads: 2, kv_rank: 8, nope_dim: 4, rope_dim: 4, v_dim: 8}}
      moe: {{experts: 8, experts_per_token: 2, expert_width: 8}}
    loop: {{steps: 60, checkpoint_every_steps: 7}}
    {TRAINING.strip()}
  eval-base: {{kind: eval, row: base, model: base}}
  tuned:
    kind: sft
    model: base
    corpus: *text
    loop: {{steps: 20, checkpoint_every_steps: 3}}
    {TRAINING.strip()}
  rl:
    kind: grpo
    model: tuned
    optimizer: {{learning_rate: 0.001}}
    rollouts: {{prompts_per_rollout: 2, samples_per_prompt: 4, max_completion_tokens: 24, micro_batch_tokens: 256,
                updates_per_rollout: 2}}
    loop: {{steps: 12, checkpoint_every_steps: 3, evaluate_every_steps: 4}}
    validation: {{problems: 4, max_tokens: 24}}
  samples: {{kind: sample, model: rl, problems: 24, samples: 4, max_tokens: 24, problems_per_chunk: 4}}
  student:
    kind: distill
    model: base
    data: samples
    teacher: rl
    teacher_share: 0.5
    loop: {{steps: 15, checkpoint_every_steps: 4}}
    {TRAINING.strip()}
  on-policy:
    kind: on_policy_distill
    model: student
    teacher: rl
    optimizer: {{learning_rate: 0.001}}
    prompts_per_step: 4
    max_completion_tokens: 24
    micro_batch_tokens: 256
    loop: {{steps: 12, checkpoint_every_steps: 3}}
result: on-policy
"""
STAGES = ["tokenizer", "base", "eval-base", "tuned", "rl", "samples", "student", "on-policy"]


@pytest.fixture(scope="module")
def processes():
    """Children fork from a server that has imported everything, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["octavo.press", "octavo.recipe", "octavo.cli", "reasoning_gym"])
    return context


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory) -> Path:
    """A recipe whose questions all have one answer: learned in a few steps, so that every stage has work to do."""
    folder = tmp_path_factory.mktemp("recipe")
    rows = [{"question": f"Is {n} so?", "answer": "yes"} for n in range(40)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    solved = [row | {"reasoning": "it is so"} for row in rows]
    (folder / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in solved))
    path = folder / "tiny.yaml"
    text = RECIPE.replace("QUESTIONS", str(folder / "questions.jsonl"))
    path.write_text(text.replace("SOLUTIONS", str(folder / "solutions.jsonl")))
    assert list(load_recipe(str(path)).stages) == STAGES
    return path


def start(processes, recipe: Path, folder: Path):
    command = ["run", str(recipe), "--out", str(folder), "--json", "--debug"]
    process = processes.Process(target=exit_code_of, args=(command,))
    process.start()
    return process


def finish(processes, recipe: Path, folder: Path) -> None:
    process = start(processes, recipe, folder)
    process.join()
    assert [row.stage for row in RunDir(folder).read_summary()] == ["base"], "the run did not come to its end"


def results(folder: Path) -> dict[str, str]:
    """sha256 of everything that stages made."""
    return {
        f"{stage}/{name}": sha256_of(folder / stage / name)
        for stage in STAGES
        for name in ("model", "samples.jsonl", "evaluation.json", "rollouts.jsonl")
        if (folder / stage / name).exists()
    }


def is_at(folder: Path, stage: str, step: int) -> bool:
    """Whether the stage runs and has done so many steps (optimizer steps, or chunks of samples)."""
    directory = RunDir(folder).stage(stage)
    if not directory.manifest.exists():
        return False
    done = max(len(read_jsonl(directory.metrics)), len(read_jsonl(directory.state / "drawn.jsonl")))
    return done >= step or directory.read_manifest().status == "finished"


@pytest.fixture(scope="module")
def uninterrupted(processes, recipe_path, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(processes, recipe_path, folder)
    made = results(folder)
    assert {f"{stage}/model" for stage in STAGES if stage not in ("eval-base", "samples")} < made.keys()
    assert "samples/samples.jsonl" in made
    return made


STEPS = {
    "tokenizer": 0,
    "base": 58,
    "eval-base": 0,
    "tuned": 18,
    "rl": 11,
    "samples": 5,
    "student": 13,
    "on-policy": 10,
}
"""The last step at which each stage may be killed."""


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_goes_on_to_the_same_weights(processes, recipe_path, uninterrupted, tmp_path, seed):
    rng = random.Random(seed)
    folder = tmp_path / "run"
    kills = 0
    for stage, last_step in STEPS.items():
        step = rng.randint(0, last_step)
        process = start(processes, recipe_path, folder)
        while process.is_alive() and not is_at(folder, stage, step):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)  # anywhere inside the step
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        # On a busy machine a run may end before the signal comes, but not many do.
        assert process.exitcode in (-signal.SIGKILL, 0)
        kills += process.exitcode == -signal.SIGKILL
    assert kills > len(STEPS) // 2
    finish(processes, recipe_path, folder)
    assert results(folder) == uninterrupted
    assert not (folder / "old").exists()
    ledger = {entry.stage: entry for entry in RunDir(folder).read_ledger()}
    assert list(ledger) == STAGES
    logged = [row["step"] for row in read_jsonl(RunDir(folder).stage("base").metrics)]
    assert logged == list(range(1, 61))
