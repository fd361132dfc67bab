"""The whole of GRPO with the real engine, tokenizer, template, task and rewards."""

import pytest
from tiny_text import conversation_source, reading_options, sparse_config, tokenizer
from tiny_training import stage_dir, tiny_model

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.optim.groups import OptimizerConfig
from octavo.rundir import read_jsonl
from octavo.tasks.task import Task
from octavo.tasks.types import Problem
from octavo.train.grpo import GRPOConfig, grpo
from octavo.train.rollout_config import RolloutConfig
from octavo.train.sft import SFTConfig, sft
from octavo.train.types import HeldOut, LoopConfig
from octavo.world import World

WORLD = World.single()


class Sums(Task):
    def __init__(self):
        super().__init__("sums", grading_seconds=1.0)

    def problem(self, split, seed, index):
        a, b = index % 8, index // 8 % 8
        return Problem(f"{split}-{seed}-{index}", "sums", f"{a} plus {b}", str(a + b))

    def score(self, problem, answer):
        return float(answer == problem.answer)


def config(kl: float = 0.0) -> GRPOConfig:
    return GRPOConfig.parse(
        {
            "loop": LoopConfig(steps=3, evaluate_every_steps=2).dump(),
            "optimizer": OptimizerConfig(learning_rate=1e-4).dump(),
            "rollouts": RolloutConfig(
                prompts_per_rollout=4, samples_per_prompt=6, max_completion_tokens=24, micro_batch_tokens=200
            ).dump(),
            "policy": {"kl_coefficient": kl},
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights that know the format."""
    model = tiny_model(sparse_config())
    options = SFTConfig(**(reading_options(30) | {"optimizer": OptimizerConfig(learning_rate=1e-2)}))
    stage = stage_dir(tmp_path_factory.mktemp("sft"))
    sft(model, tokenizer(), conversation_source(), options, WORLD, stage, seed=0)
    return model.state_dict()


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_learner_and_engine_agree(tmp_path, trained, kl):
    model = tiny_model(sparse_config())
    model.load_state_dict(trained)
    engine = Engine(model, tokenizer(), EngineConfig(max_rows=8, max_tokens=64))
    scores = iter([0.0, 0.25, 0.5])
    held_out = HeldOut("held_out_accuracy", lambda: next(scores))
    stage = stage_dir(tmp_path)
    result = grpo(model, tokenizer(), engine, Sums(), config(kl), WORLD, stage, seed=5, held_out=held_out)
    rows = read_jsonl(stage.metrics)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        # One update a rollout: the policy that learns is the one that drew, weights changed in between notwithstanding.
        assert row["ratio"] == pytest.approx(1, abs=1e-4)
        assert row["ratio_max"] == pytest.approx(1, abs=5e-3)
        assert row["masked"] == 0
        assert row["completion_tokens"] > 0
        assert {"reward_accuracy", "reward_format", "reward_language", "entropy", "expert_load_max"} <= row.keys()
        assert ("kl" in row) == (kl > 0)
    if kl:
        # The reference is the model as it came: at first the same.
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert rows[2]["kl"] > 0
    assert (result.best_step, result.best_score) == (3, 0.5)
    assert result.generated_tokens == sum(row["completions"] * row["completion_tokens"] for row in rows)
    logged = read_jsonl(stage.rollouts)
    assert {row["step"] for row in logged} == {1, 2, 3}
    assert all(row["question"].count("plus") == 1 for row in logged)
