import pytest
import torch
from tiny_rl import NaiveCompleter, encode, rollout_config, rollout_stream, score
from tiny_training import DENSE, stage_dir, tiny_model

from octavo.errors import ConfigError, TrainingError
from octavo.rundir import read_jsonl
from octavo.tasks.types import Completion, Grade, GradeStatus, Rollout
from octavo.train.progress import Silent
from octavo.train.samples import completions_in
from octavo.world import World


class Scripted:
    """Answers every problem with the completions that `script(question)` gives."""

    def __init__(self, script):
        self.script = script
        self.asked: list[int] = []

    def complete(self, requests):
        self.asked.append(len(requests))
        drawn = []
        for request in requests:
            first = self.script(request)
            assert len(first) == request.samples
            drawn.append([Completion(request.prompt_ids, ids, (-1.0,) * len(ids), "", "stop") for ids in first])
        return drawn


MIXED = [(2, 0), (1, 0), (2, 0), (1, 9, 0)]
TIED = [(2, 0)] * 4


def by_prompt(request):
    """Problems 0, 3, 6, ... (whose prompt begins with 1) are mixed, the others tied."""
    return MIXED if request.prompt_ids[0] == 1 else TIED


def test_tied_groups_are_replaced_by_new_problems_up_to_the_cap(tmp_path):
    completer = Scripted(by_prompt)
    stream = rollout_stream(stage_dir(tmp_path), rollout_config(max_resamples=2), completer=completer)
    batches = next(stream)
    # Problems 0 1 2: one is mixed, two missing. 3 4: one mixed, one missing. 5: tied, and the rounds are over.
    assert completer.asked == [3, 2, 1]
    assert sum(completions_in(batch) for batch in batches) == 2 * 4
    metrics = stream.metrics()
    assert metrics["tied_groups"] == pytest.approx(4 / 6)
    assert metrics["completions"] == 24
    # Two mixed groups with half right, four tied with all right.
    assert metrics["reward"] == metrics["correct"] == metrics["reward_accuracy"] == pytest.approx(20 / 24)
    assert metrics["reward_std"] == pytest.approx((20 / 24 * 4 / 24) ** 0.5)
    assert metrics["completion_tokens"] == pytest.approx((24 * 2 + 2) / 24)
    assert metrics["completion_tokens_max"] == 3
    assert metrics["finished_share"] == 1
    assert stream.generated_tokens == 50


def test_advantages_and_logprobs_stand_at_the_completions_tokens(tmp_path):
    stream = rollout_stream(stage_dir(tmp_path), rollout_config(max_resamples=0), completer=Scripted(by_prompt))
    (batch,) = next(stream)
    counted = batch.weights_BT > 0
    assert batch.targets_BT[counted].tolist() == [2, 0, 1, 0, 2, 0, 1, 9, 0]
    assert batch.advantages_BT[counted].tolist() == [1, 1, -1, -1, 1, 1, -1, -1, -1]
    assert batch.behaviour_logprobs_BT[counted].tolist() == [-1.0] * 9
    assert batch.advantages_BT[~counted].abs().max() == 0


def test_what_no_verifier_could_score_is_masked_and_counted(tmp_path):
    failing = Scripted(lambda request: [(2, 0), (1, 0), (23, 0), (2, 23, 0)])
    stream = rollout_stream(stage_dir(tmp_path), rollout_config(), completer=failing)
    batches = next(stream)
    assert 23 not in torch.cat([batch.targets_BT.flatten() for batch in batches]).tolist()
    assert sum(completions_in(batch) for batch in batches) == 3 * 2
    assert stream.metrics()["masked"] == 0.5
    # Of what was scored, half was right: were the masked ones taken for wrong, it would be a quarter.
    assert stream.metrics()["reward"] == 0.5


def test_the_log_says_why_an_answer_could_not_be_graded(tmp_path):
    failing = Scripted(lambda request: [(23, 0), (1, 0), (2, 0), (2, 0)])
    next(rollout_stream(stage_dir(tmp_path), rollout_config(), completer=failing))
    row = read_jsonl(stage_dir(tmp_path).rollouts)[0]
    assert (row["status"], row["detail"]) == ("error", "23")


def test_the_overlong_penalty_is_linear(tmp_path):
    lengths = [(1,) * 6, (1,) * 8, (1,) * 9, (1,) * 10]
    config = rollout_config(
        max_completion_tokens=10, overlong_tokens=4, overlong_penalty=0.5, prompts_per_rollout=1, max_resamples=0
    )
    stream = rollout_stream(stage_dir(tmp_path), config, completer=Scripted(lambda request: lengths))
    next(stream)
    row = read_jsonl(stage_dir(tmp_path).rollouts)[0]
    assert row["group_rewards"] == [0.0, -0.25, -0.375, -0.5]
    assert stream.metrics()["reward_overlong"] == pytest.approx((-0.25 - 0.375 - 0.5) / 4)


def test_all_groups_tied_warns_and_then_stops(tmp_path):
    class Listener(Silent):
        warnings: list[str] = []  # noqa: RUF012

        def on_warning(self, text):
            self.warnings.append(text)

    config = rollout_config(tied_patience=2, tied_limit=4, max_resamples=0)
    stage = stage_dir(tmp_path / "zero")
    stream = rollout_stream(stage, config, completer=Scripted(lambda request: TIED), observer=Listener())
    assert [next(stream) for _ in range(3)] == [[], [], []]
    assert len(Listener.warnings) == 1
    assert (
        "zero: every group tied for 2 rollouts (mean reward 1), so there was nothing to learn" in Listener.warnings[0]
    )
    with pytest.raises(
        TrainingError, match=r"zero: every group tied for 4 rollouts .* try easier or harder .*; stopped"
    ):
        next(stream)


def test_one_mixed_group_resets_the_patience(tmp_path):
    config = rollout_config(prompts_per_rollout=1, tied_limit=3, max_resamples=0)
    stream = rollout_stream(stage_dir(tmp_path), config, completer=Scripted(by_prompt))
    # Mixed, tied, tied, mixed, ...: never three in a row.
    assert [bool(next(stream)) for _ in range(7)] == [True, False, False, True, False, False, True]


def test_rollouts_are_logged_with_the_step_that_learns_from_them(tmp_path):
    config = rollout_config(logged_rollouts=2)
    stream = rollout_stream(stage_dir(tmp_path), config, completer=Scripted(by_prompt))
    next(stream)
    next(stream)
    rows = read_jsonl(stage_dir(tmp_path).rollouts)
    assert [row["step"] for row in rows] == [1, 1, 2, 2]
    assert rows[0] | {"completion": ""} == {
        "step": 1, "problem": "train-0-0", "task": "even", "question": "0", "gold": "even", "completion": "",
        "tokens": 2, "finish_reason": "stop", "status": "ok", "detail": "", "reward": 1.0, "rewards": {"accuracy": 1.0},
        "advantage": 1.0, "group_rewards": [1.0, 0.0, 1.0, 0.0],
    }  # fmt: skip


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_stream_goes_on_with_the_same_batches(tmp_path, updates, after):
    model = tiny_model(DENSE)

    def stream(name):
        return rollout_stream(stage_dir(tmp_path / name), rollout_config(updates_per_rollout=updates), model)

    whole = stream("whole")
    expected = [next(whole) for _ in range(6)]
    first = stream("first")
    for _ in range(after):
        next(first)
    resumed = stream("resumed")
    resumed.load_state_dict(first.state_dict())
    assert resumed.metrics() == first.metrics()
    for batches in expected[after:]:
        again = next(resumed)
        assert len(again) == len(batches)
        for left, right in zip(again, batches, strict=True):
            assert all(torch.equal(vars(left)[name], value) for name, value in vars(right).items() if value is not None)
    assert resumed.generated_tokens == whole.generated_tokens


def test_several_updates_share_a_rollout(tmp_path):
    completer = Scripted(lambda request: MIXED)
    stream = rollout_stream(stage_dir(tmp_path), rollout_config(updates_per_rollout=2), completer=completer)
    steps = [next(stream) for _ in range(4)]
    assert completer.asked == [3, 3]
    assert [sum(completions_in(batch) for batch in batches) for batches in steps] == [8, 4, 8, 4]


def test_ranks_share_the_problems(tmp_path):
    class Rank(World):
        """One of two ranks, whose sums are as if the other had found the same."""

        def all_reduce_(self, tensor):
            return tensor.mul_(2)

    seen = []
    for rank in (0, 1):
        completer = NaiveCompleter(tiny_model(DENSE))
        world = Rank(rank, 2, torch.device("cpu"), torch.float32)
        config = rollout_config(prompts_per_rollout=4, max_resamples=0)
        next(rollout_stream(stage_dir(tmp_path), config, completer=completer, world=world))
        seen.append([request.params.seed for request in completer.requests])
    alone = NaiveCompleter(tiny_model(DENSE))
    next(rollout_stream(stage_dir(tmp_path), rollout_config(prompts_per_rollout=4, max_resamples=0), completer=alone))
    seeds = [request.params.seed for request in alone.requests]
    assert seen == [seeds[0::2], seeds[1::2]]
    with pytest.raises(ConfigError, match="updates_per_rollout must be 1 on 2 ranks, got 2"):
        rollout_stream(stage_dir(tmp_path), rollout_config(updates_per_rollout=2), completer=alone, world=world)


def test_dr_grpo_leaves_the_std_out(tmp_path):
    stream = rollout_stream(
        stage_dir(tmp_path), rollout_config(max_resamples=0), completer=Scripted(by_prompt), kind="dr_grpo"
    )
    (batch,) = next(stream)
    counted = batch.weights_BT > 0
    assert set(batch.advantages_BT[counted].tolist()) == {0.5, -0.5}
    assert batch.weights_BT[counted].tolist() == [0.25] * 9


def test_the_fakes_agree_with_the_types():
    problem = type("P", (), {"question": "4"})()
    assert encode(problem) == [2, 5]
    rollout = score(problem, Completion((1,), (2, 0), (-1.0, -1.0), "", "stop"))
    assert isinstance(rollout, Rollout)
    assert rollout.grade == Grade(GradeStatus.OK, 1.0)
