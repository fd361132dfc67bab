import copy
import functools

import pytest
import torch
from tiny_rl import NaiveCompleter, rollout_config, rollout_stream
from tiny_training import DENSE, SPARSE, losses, same_weights, stage_dir, tiny_model, tiny_optimizer

from octavo.losses.policy import PolicyConfig
from octavo.model.quantize import quantized
from octavo.optim.groups import OptimizerConfig
from octavo.optim.schedule import ScheduleConfig
from octavo.rundir import read_jsonl
from octavo.train.grpo import GRPOConfig, grpo_loss
from octavo.train.loop import fit
from octavo.train.progress import Silent
from octavo.train.samples import completions_in, with_reference
from octavo.train.types import LoopConfig
from octavo.world import World


class RoundedCompleter:
    """Draws from a rounded copy of the model as it is at each call."""

    def __init__(self, model):
        self.model = model

    def complete(self, requests):
        return NaiveCompleter(quantized(self.model, "int8")).complete(requests)


def run(
    path,
    config=DENSE,
    steps=4,
    policy=None,
    observer=None,
    learning_rate=1e-2,
    loop=None,
    completer=NaiveCompleter,
    **rollouts,
):
    policy = policy or PolicyConfig()
    model = tiny_model(config)
    stage = stage_dir(path)
    stream = rollout_stream(stage, rollout_config(**rollouts), model, kind=policy.kind, completer=completer(model))
    options = {"checkpoint_every_seconds": None, "schedule": ScheduleConfig(kind="constant")} | (loop or {})
    fit(
        model,
        tiny_optimizer(model, learning_rate),
        stream,
        functools.partial(grpo_loss, policy),
        LoopConfig(steps=steps, **options),
        World.single(),
        stage,
        observer=observer,
        normalizer=completions_in if policy.kind == "dr_grpo" else lambda batch: batch.weight,
        stream_metrics=stream.metrics,
    )
    return model, stage


def test_learns_what_is_rewarded(tmp_path):
    _, stage = run(tmp_path, steps=20, prompts_per_rollout=6, samples_per_prompt=8, max_completion_tokens=1)
    rewards = [row["reward"] for row in read_jsonl(stage.metrics)]
    assert sum(rewards[:3]) / 3 < 0.65
    assert sum(rewards[-3:]) / 3 > 0.85


def test_learns_from_what_a_rounded_copy_drew(tmp_path):
    _, stage = run(
        tmp_path,
        steps=20,
        policy=PolicyConfig(importance_cap=2.0),
        completer=RoundedCompleter,
        prompts_per_rollout=6,
        samples_per_prompt=8,
        max_completion_tokens=1,
    )
    rows = read_jsonl(stage.metrics)
    assert sum(row["reward"] for row in rows[:3]) / 3 < 0.65
    assert sum(row["reward"] for row in rows[-3:]) / 3 > 0.85
    ratios = [row["ratio_max"] for row in rows if "ratio_max" in row]
    assert len(ratios) > 10
    assert all(1.0001 < ratio < 1.5 for ratio in ratios)


def test_a_rounded_sampler_needs_a_correction():
    parts = {
        "loop": LoopConfig(steps=1),
        "optimizer": OptimizerConfig(learning_rate=1e-3),
        "rollouts": rollout_config(),
        "sampler_weights": "int8",
    }
    with pytest.raises(ValueError, match=r"sampler_weights int8 needs policy\.importance_cap, as 2"):
        GRPOConfig(**parts)
    assert GRPOConfig(**parts, policy=PolicyConfig(importance_cap=2.0)).sampler_weights == "int8"


def test_on_policy_the_ratio_is_one_and_the_loss_zero(tmp_path):
    _, stage = run(tmp_path, config=SPARSE)
    for row in read_jsonl(stage.metrics):
        # Sampled token by token, learned packed: the same numbers.
        assert row["ratio"] == pytest.approx(1, abs=1e-5)
        assert row["ratio_max"] == pytest.approx(1, abs=1e-4)
        assert row["clip_share"] == 0
        assert row["behaviour_kl"] == pytest.approx(0, abs=1e-6)
        assert 0 < row["entropy"] <= 3.1782
        assert row["gradient_norm"] > 0


def test_the_gradient_does_not_depend_on_the_micro_batch(tmp_path):
    for kind in ("dapo", "grpo", "dr_grpo"):
        rows = []
        for tokens in (6, 1000):
            _, stage = run(
                tmp_path / f"{kind}{tokens}", policy=PolicyConfig(kind=kind), steps=1, micro_batch_tokens=tokens
            )
            rows.append(read_jsonl(stage.metrics)[0])
        for name in ("gradient_norm", "entropy", "ratio"):
            assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-5), (kind, name)


def test_dr_grpo_divides_by_completions_times_the_limit(tmp_path):
    """Against the definition: the sum over tokens of -A log p, over (completions x most tokens)."""
    model, policy = tiny_model(DENSE), PolicyConfig(kind="dr_grpo")
    stream = rollout_stream(stage_dir(tmp_path), rollout_config(), model, kind="dr_grpo")
    batches = next(stream)
    total = sum(grpo_loss(policy, model, batch, 0.0).loss_sum for batch in batches)
    total = total / sum(map(completions_in, batches))
    expected = 0.0
    for batch in batches:
        logits_TV = model.logits(model(batch.inputs_BT, batch.positions_BT))[0].log_softmax(-1)
        logprobs_T = logits_TV.gather(1, batch.targets_BT.T).squeeze(1)
        counted = batch.weights_BT[0] > 0
        expected = expected - (batch.advantages_BT[0] * logprobs_T)[counted].sum()
    expected = expected / (sum(map(completions_in, batches)) * 4)
    got = torch.autograd.grad(total, list(model.parameters()))
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
@pytest.mark.parametrize("updates", [1, 2])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, killed_after, updates):
    class Killed(Silent):
        def on_step(self, progress):
            if progress.step == killed_after:
                raise KeyboardInterrupt

    options = {"updates_per_rollout": updates, "loop": {"checkpoint_every_steps": 1}}
    whole, whole_stage = run(tmp_path / "whole", config=SPARSE, **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", config=SPARSE, observer=Killed(), **options)
    resumed, stage = run(tmp_path / "killed", config=SPARSE, **options)
    assert same_weights(whole, resumed)
    assert losses(stage) == losses(whole_stage)
    assert read_jsonl(stage.rollouts) == read_jsonl(whole_stage.rollouts)


def test_kl_pulls_towards_the_reference(tmp_path):
    model = tiny_model(DENSE)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        model.head.weight.add_(0.1 * torch.randn_like(model.head.weight))
    batch = next(rollout_stream(stage_dir(tmp_path), rollout_config(), model))[0]
    policy = PolicyConfig(kl_coefficient=0.5)
    same = grpo_loss(policy, model, with_reference(batch, model), 0.0)
    assert same.sums["kl"].item() == pytest.approx(0, abs=1e-6)
    other = grpo_loss(policy, model, with_reference(batch, reference), 0.0)
    assert other.sums["kl"].item() > 0
    torch.testing.assert_close(other.loss_sum, same.loss_sum + 0.5 * other.sums["kl"], atol=1e-5, rtol=1e-5)


def test_steps_without_anything_to_learn_leave_the_weights(tmp_path):
    """A limit of one token and groups of two: with a tolerance above every difference all groups are tied."""
    model, stage = run(tmp_path, steps=2, tie_tolerance=2.0)
    assert same_weights(model, tiny_model(DENSE))
    assert [row["tied_groups"] for row in read_jsonl(stage.metrics)] == [1.0, 1.0]
    assert [row["gradient_norm"] for row in read_jsonl(stage.metrics)] == [0.0, 0.0]
