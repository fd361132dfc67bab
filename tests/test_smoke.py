"""The smoke recipe, whole: every stage of r1-mini, and what other programs make of its checkpoints."""

from pathlib import Path

import pytest
import torch
import transformers

from octavo.cli import exit_code_of
from octavo.recipe import load_recipe
from octavo.rundir import RunDir, read_jsonl
from octavo.weights.hf import load_model

ROWS = ["guess", "base", "zero", "cold-start", "rl", "resampled", "final", "student", "student-rl"]
SHORTER = ["evaluation.problems=8", "evaluation.samples=2", "base.loop.steps=100", "student-base.loop.steps=20"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> RunDir:
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    command = ["run", "smoke", "--out", str(folder)]
    assert exit_code_of([*command, *(part for override in SHORTER for part in ("--set", override))]) == 0
    torch.set_num_threads(threads)
    return RunDir(folder)


def test_the_closing_table_has_its_rows(run_dir):
    rows = run_dir.read_summary()
    assert [row.stage for row in rows] == ROWS
    for row in rows:
        assert 0 <= row.low <= row.pass_at_1 <= row.high <= 1
    for row in rows[1:]:
        assert row.tokens > 0
        assert row.flops > 0
        assert row.seconds > 0
        assert 0 <= row.finished_share <= 1
        assert row.mean_completion_tokens > 0


def test_every_stage_is_disclosed(run_dir):
    recipe = load_recipe("smoke")
    assert [entry.stage for entry in run_dir.read_ledger()] == list(recipe.stages)
    for name, stage in recipe.stages.items():
        manifest = run_dir.stage(name).read_manifest()
        assert manifest.status == "finished"
        assert manifest.kind == stage.kind
        if stage.kind in ("pretrain", "sft", "distill", "grpo"):
            assert read_jsonl(run_dir.stage(name).metrics)
        if stage.kind == "grpo":
            assert read_jsonl(run_dir.stage(name).rollouts)


def test_the_base_learned_something(run_dir):
    losses = [row["loss"] for row in read_jsonl(run_dir.stage("base").metrics)]
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize(
    ("stage", "architecture"), [("final", "DeepseekV3ForCausalLM"), ("student", "Qwen2ForCausalLM")]
)
def test_transformers_opens_the_checkpoints(run_dir, stage, architecture):
    folder: Path = run_dir.stage(stage).model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == architecture
    ours = load_model(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 3?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    with torch.no_grad():
        expected = theirs(ids).logits
        logits = ours.logits(ours(ids, torch.arange(ids.shape[1])[None]))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
