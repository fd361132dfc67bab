import pytest
import torch
from test_golden import run_on_policy_distill
from tiny_rl import EvenProblems, NaiveCompleter, encode
from tiny_text import conversation_source, dense_config, reading_options, tokenizer
from tiny_training import DENSE, random_batch, same_weights, stage_dir, tiny_model

from octavo.errors import ConfigError
from octavo.losses.distill import full_kl
from octavo.optim.groups import OptimizerConfig
from octavo.optim.schedule import ScheduleConfig
from octavo.rundir import read_jsonl
from octavo.train.distill import DistillConfig, distill, distill_loss
from octavo.train.on_policy_distill import OnPolicyDistillConfig, OnPolicyStream
from octavo.train.sft import SFTConfig, sft, sft_loss
from octavo.train.types import LoopConfig
from octavo.world import World

WORLD = World.single()


def config(share: float, steps: int = 3) -> DistillConfig:
    return DistillConfig(**reading_options(steps), teacher_share=share)


def test_without_a_share_of_the_teacher_it_is_sft(tmp_path):
    left, right = tiny_model(dense_config()), tiny_model(dense_config())
    distill(left, tokenizer(), conversation_source(), config(0.0), WORLD, stage_dir(tmp_path / "a"), seed=3)
    options = SFTConfig(**reading_options(3))
    sft(right, tokenizer(), conversation_source(), options, WORLD, stage_dir(tmp_path / "b"), seed=3)
    assert same_weights(left, right)
    assert not same_weights(left, tiny_model(dense_config()))


def test_the_loss_mixes_samples_and_teacher():
    student, teacher, batch = tiny_model(DENSE).train(), tiny_model(DENSE, seed=7).eval(), random_batch(0)
    loss = distill_loss(config(0.25), teacher, student, batch, 0.0)
    sampled = sft_loss(SFTConfig(**reading_options()), student, batch, 0.0).loss_sum
    hidden_RD = student(batch.inputs_BT, batch.positions_BT).flatten(0, 1)
    teacher_hidden_RD = teacher(batch.inputs_BT, batch.positions_BT).flatten(0, 1)
    weights_R = batch.weights_BT.flatten()
    whole = full_kl(
        "forward_kl", hidden_RD, student.head_weight_VD, teacher_hidden_RD, teacher.head_weight_VD, weights_R
    ).loss_sum
    torch.testing.assert_close(loss.loss_sum, 0.75 * sampled + 0.25 * whole)
    torch.testing.assert_close(loss.sums["forward_kl"], whole.detach())
    loss.loss_sum.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_teacher_that_is_missing_or_speaks_otherwise_is_refused(tmp_path):
    arguments = (
        tiny_model(dense_config()),
        tokenizer(),
        conversation_source(),
        config(0.5),
        WORLD,
        stage_dir(tmp_path),
    )
    with pytest.raises(ConfigError, match=r"teacher_share is 0\.5, but there is no teacher"):
        distill(*arguments, seed=0)
    with pytest.raises(ConfigError, match="must share a vocabulary, got 24 and 271 tokens"):
        distill(*arguments, seed=0, teacher=tiny_model(DENSE))


def test_on_policy_the_student_nears_the_teacher(tmp_path):
    stage = stage_dir(tmp_path)
    run_on_policy_distill(stage)
    rows = read_jsonl(stage.metrics)
    assert all(row["reverse_kl"] > -0.1 for row in rows)
    assert rows[-1]["step"] == 20


def test_the_on_policy_stream_resumes_with_the_next_problems():
    options = OnPolicyDistillConfig(
        loop=LoopConfig(steps=2, schedule=ScheduleConfig()),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        prompts_per_step=3,
        max_completion_tokens=3,
        micro_batch_tokens=10,
    )
    student, teacher = tiny_model(DENSE), tiny_model(DENSE, seed=7)

    def stream():
        return OnPolicyStream(EvenProblems(), NaiveCompleter(student), encode, teacher, options, WORLD, seed=1)

    whole = stream()
    first = next(whole)
    resumed = stream()
    resumed.load_state_dict(whole.state_dict())
    for left, right in zip(next(whole), next(resumed), strict=True):
        assert torch.equal(left.targets_BT, right.targets_BT)
        assert torch.equal(left.reference_logprobs_BT, right.reference_logprobs_BT)
        assert not torch.equal(left.behaviour_logprobs_BT, left.reference_logprobs_BT)
    assert sum(int((batch.positions_BT == 0).sum()) for batch in first) == 3
