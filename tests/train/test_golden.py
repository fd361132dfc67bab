"""Traces of 20 steps of each trainer. They change only with a stated reason.

To write them anew: OCTAVO_WRITE_GOLDEN=1 pytest tests/train/test_golden.py
"""

import functools
import json
import os
from pathlib import Path

import pytest
from tiny_rl import EvenProblems, NaiveCompleter, encode, rollout_config, rollout_stream
from tiny_text import conversation_source, dense_config, plain_source, reading_options, sparse_config, tokenizer
from tiny_training import DENSE, stage_dir, tiny_model, tiny_optimizer

from octavo.losses.policy import PolicyConfig
from octavo.optim.groups import OptimizerConfig
from octavo.rundir import read_jsonl
from octavo.train.distill import DistillConfig, distill
from octavo.train.grpo import grpo_loss
from octavo.train.loop import fit
from octavo.train.on_policy_distill import OnPolicyDistillConfig, distill_on_policy
from octavo.train.pretrain import PretrainConfig, pretrain
from octavo.train.sft import SFTConfig, sft
from octavo.train.types import LoopConfig
from octavo.world import World

WORLD = World.single()


def run_pretrain(stage):
    config = PretrainConfig(**reading_options())
    pretrain(tiny_model(sparse_config()), tokenizer(), plain_source(), config, WORLD, stage, seed=1)


def run_sft(stage):
    config = SFTConfig(**reading_options())
    sft(tiny_model(dense_config()), tokenizer(), conversation_source(), config, WORLD, stage, seed=1)


def run_distill(stage):
    config = DistillConfig(**reading_options(), teacher_share=0.5)
    teacher = tiny_model(dense_config(), seed=7)
    student = tiny_model(dense_config())
    distill(student, tokenizer(), conversation_source(), config, WORLD, stage, seed=1, teacher=teacher)


def run_on_policy_distill(stage):
    config = OnPolicyDistillConfig(
        loop=LoopConfig(steps=20),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        prompts_per_step=4,
        max_completion_tokens=4,
        micro_batch_tokens=20,
    )
    student, teacher = tiny_model(DENSE), tiny_model(DENSE, seed=7)
    completer = NaiveCompleter(student)
    distill_on_policy(student, teacher, completer, EvenProblems(), encode, config, WORLD, stage, seed=1)


def run_grpo(stage):
    model = tiny_model(DENSE)
    stream = rollout_stream(stage, rollout_config(updates_per_rollout=2), model)
    loss = functools.partial(grpo_loss, PolicyConfig())
    loop = LoopConfig(steps=20)
    fit(model, tiny_optimizer(model, 3e-3), stream, loss, loop, WORLD, stage, stream_metrics=stream.metrics)


TRAINERS = {
    "pretrain": (run_pretrain, ("loss", "mtp_loss", "balance_loss", "expert_load_max", "gradient_norm")),
    "sft": (run_sft, ("loss", "gradient_norm")),
    "distill": (run_distill, ("loss", "cross_entropy", "forward_kl", "gradient_norm")),
    "on_policy_distill": (run_on_policy_distill, ("loss", "reverse_kl", "gradient_norm")),
    "grpo": (run_grpo, ("reward", "tied_groups", "completion_tokens", "entropy", "ratio", "gradient_norm")),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trace(tmp_path, trainer):
    run, names = TRAINERS[trainer]
    stage = stage_dir(tmp_path / trainer)
    run(stage)
    rows = read_jsonl(stage.metrics)
    trace = {name: [row.get(name, 0.0) for row in rows] for name in names}
    path = Path(__file__).parent / "golden" / f"{trainer}.json"
    if os.environ.get("OCTAVO_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        lines = ",\n".join(f'  "{name}": {json.dumps([round(v, 9) for v in values])}' for name, values in trace.items())
        path.write_text(f"{{\n{lines}\n}}\n")
    golden = json.loads(path.read_text())
    assert trace.keys() == golden.keys()
    for name, values in golden.items():
        for step, (got, wanted) in enumerate(zip(trace[name], values, strict=True), start=1):
            assert got == pytest.approx(wanted, rel=1e-5, abs=1e-6), (name, step)
