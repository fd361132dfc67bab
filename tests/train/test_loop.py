import functools
import math
import time
from types import SimpleNamespace

import pytest
import torch
from tiny_training import DENSE, SPARSE, RandomStream, losses, same_weights, stage_dir, tiny_model, tiny_optimizer

from octavo.errors import TrainingError
from octavo.losses.loss_sum import LossSum
from octavo.optim.groups import OptimizerConfig
from octavo.optim.schedule import ScheduleConfig
from octavo.rundir import read_jsonl
from octavo.train.loop import fit
from octavo.train.pretrain import PretrainConfig, pretrain_loss
from octavo.train.progress import Silent
from octavo.train.types import HeldOut, LoopConfig
from octavo.world import World

WORLD = World.single()
LOSS = functools.partial(
    pretrain_loss,
    PretrainConfig(
        loop=LoopConfig(steps=1),
        optimizer=OptimizerConfig(learning_rate=1.0),
        tokens_per_step=1,
        tokens_per_row=1,
        micro_batch_tokens=1,
        balance_alpha=0.1,
    ),
)


def run(
    path, steps=6, stream=None, config=SPARSE, loss=LOSS, learning_rate=1e-2, observer=None, held_out=None, **options
):
    model = tiny_model(config)
    stage = stage_dir(path)
    loop = LoopConfig(steps=steps, checkpoint_every_seconds=None, bias_rate=0.01, **options)
    optimizer = tiny_optimizer(model, learning_rate)
    stream = stream or RandomStream()
    result = fit(model, optimizer, stream, loss, loop, WORLD, stage, observer=observer, held_out=held_out)
    return model, stage, result


def test_learns_and_logs(tmp_path):
    class Memorize(RandomStream):
        def __next__(self):
            self.position = 0
            return super().__next__()

    _, stage, result = run(tmp_path, steps=30, stream=Memorize())
    trace = losses(stage)
    assert trace[0] == pytest.approx(math.log(24), rel=0.05)
    assert trace[-1] < trace[0] / 2
    row = read_jsonl(stage.metrics)[-1]
    assert row["step"] == 30
    assert row["tokens"] == result.tokens == 30 * 4 * 12
    assert row["expert_load_max"] >= 1.0
    assert row["learning_rate"] == pytest.approx(1e-2 / 6)
    assert row["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("config", "steps", "tolerance"),
    [(SPARSE, 1, 1e-5), (DENSE, 5, 1e-9)],
    ids=["sparse", "dense"],
)
def test_micro_batches_change_nothing(tmp_path, config, steps, tolerance):
    """Sparse only for a step: then rounding sends some token to another expert. Dense in double precision."""

    def trained(micro_batches):
        model = tiny_model(config)
        model = model.double() if config is DENSE else model
        stage = stage_dir(tmp_path / str(micro_batches))
        loop = LoopConfig(steps=steps, bias_rate=0.01, bias_freeze_share=0.0)
        # A thousandth of the usual rate: Adam's first step is the sign of the gradient, which rounding can turn.
        stream = RandomStream(micro_batches, rows=8)
        fit(model, tiny_optimizer(model, 1e-5), stream, LOSS, loop, WORLD, stage)
        return model, stage

    one, one_stage = trained(1)
    eight, eight_stage = trained(8)
    for row, other in zip(read_jsonl(one_stage.metrics), read_jsonl(eight_stage.metrics), strict=True):
        same = {name: value for name, value in row.items() if "second" not in name}
        assert same == pytest.approx({name: other[name] for name in same}, rel=tolerance)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, eight.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("killed_after", range(6))
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, killed_after):
    """Killed after any step, with a checkpoint after every second one."""

    class Killed(Silent):
        def on_step(self, progress):
            if progress.step == killed_after:
                raise KeyboardInterrupt

    whole, whole_stage, _ = run(tmp_path / "whole")
    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", observer=Killed(), checkpoint_every_steps=2)
    resumed, resumed_stage, result = run(tmp_path / "killed", checkpoint_every_steps=2)
    assert same_weights(whole, resumed)
    assert losses(whole_stage) == losses(resumed_stage)
    assert [row["step"] for row in read_jsonl(resumed_stage.metrics)] == [1, 2, 3, 4, 5, 6]
    assert result.tokens == 6 * 4 * 12


def test_a_finished_run_is_not_trained_again(tmp_path):
    model, stage, result = run(tmp_path)
    again, _, result_again = run(tmp_path)
    assert same_weights(model, again)
    assert result == result_again
    assert len(read_jsonl(stage.metrics)) == 6


def test_a_stream_that_ends_ends_the_run(tmp_path):
    _, stage, result = run(tmp_path, stream=RandomStream(steps=4))
    assert result.step == 4
    assert len(losses(stage)) == 4


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_update(tmp_path, where):
    good = tiny_model(DENSE)

    def loss(model, batch, share_done):
        result = LOSS(model, batch, share_done)
        if share_done < 0.5:
            return result
        if where == "loss":
            return LossSum(result.loss_sum * float("nan"))
        # The value is finite, its gradient is not: d sqrt(x) / dx at 0.
        zero = (model.embed.weight * 0).sum()
        return LossSum(result.loss_sum + zero.sqrt())

    with pytest.raises(
        TrainingError, match=r"stage, step 4: loss .*, gradient norm nan; stopped before the update\. Try"
    ):
        run(tmp_path / "stage", config=DENSE, loss=loss, checkpoint_every_steps=1)
    assert len(losses(stage_dir(tmp_path / "stage"))) == 3
    # The checkpoint of step 3 is good: with a loss that is finite again the run ends as if nothing had been.
    resumed, _, _ = run(tmp_path / "stage", config=DENSE)
    whole, _, _ = run(tmp_path / "whole", config=DENSE)
    assert same_weights(resumed, whole)
    assert not same_weights(resumed, good)


def test_the_gradient_is_clipped_to_the_norm(tmp_path):
    seen = []
    model = tiny_model(DENSE)
    optimizer = tiny_optimizer(model)
    step = optimizer.step

    def watched_step():
        seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in optimizer.parameters if p.grad is not None])))
        step()

    optimizer.step = watched_step
    loop = LoopConfig(steps=3, clip_norm=0.01)
    fit(model, optimizer, RandomStream(), LOSS, loop, WORLD, stage_dir(tmp_path))
    assert seen == pytest.approx([0.01] * 3, rel=1e-3)
    assert min(row["gradient_norm"] for row in read_jsonl(stage_dir(tmp_path).metrics)) > 0.01


def test_the_bias_moves_against_the_load_and_rests_at_the_end(tmp_path):
    model, _, _ = run(tmp_path / "a", steps=2, bias_freeze_share=0.5)
    biases = torch.cat([router.bias_E for router in model.routers()])
    # One step of 0.01, up or down, for each expert whose load was not the mean; then rest.
    assert set(biases.abs().tolist()) <= {0.0, torch.tensor(0.01).item()}
    assert biases.max() > 0 > biases.min()
    model, _, _ = run(tmp_path / "b", steps=4, bias_freeze_share=1.0)
    assert all(router.bias_E.abs().max() == 0 for router in model.routers())


def test_counts_made_between_steps_are_not_of_the_step(tmp_path):
    """Generation or scoring between steps must not move the bias."""
    plain, _, _ = run(tmp_path / "plain")

    class Noisy(Silent):
        model = None

        def on_step(self, progress):
            for router in noisy_model.routers():
                router.load_E[0] += 1000

    noisy_model = tiny_model()
    optimizer = tiny_optimizer(noisy_model)
    loop = LoopConfig(steps=6, bias_rate=0.01)
    fit(noisy_model, optimizer, RandomStream(), LOSS, loop, WORLD, stage_dir(tmp_path / "noisy"), observer=Noisy())
    assert same_weights(plain, noisy_model)


def test_a_step_where_nothing_counts_changes_nothing(tmp_path):
    class Weightless(RandomStream):
        def __next__(self):
            batches = super().__next__()
            return [] if self.position == 1 else [batches[0].__class__(*_without_weight(batches[0]))]

    model, stage, result = run(tmp_path, steps=2, stream=Weightless())
    assert same_weights(model, tiny_model())
    assert losses(stage) == [0.0, 0.0]
    assert (result.step, result.tokens) == (2, 24)


def _without_weight(batch):
    return batch.inputs_BT, batch.targets_BT, torch.zeros_like(batch.weights_BT), batch.positions_BT


def test_the_best_weights_by_held_out_score_come_back_also_after_a_kill(tmp_path):
    scores = {1: 0.1, 2: 0.3, 4: 0.9, 6: 0.5}  # 1: before the first step

    class Judge(Silent):
        step = 0

        def on_step(self, progress):
            self.step = progress.step
            if progress.step == self.kill_at:
                raise KeyboardInterrupt

        kill_at = None

        def score(self):
            return scores[self.step + 1]

    def judged(path, kill_at=None, start=0, steps=6):
        judge = Judge()
        judge.kill_at, judge.step = kill_at, start
        held_out = HeldOut("held_out_accuracy", judge.score)
        options = {"evaluate_every_steps": 2, "checkpoint_every_steps": 1, "schedule": ScheduleConfig(kind="constant")}
        return run(path, steps=steps, config=DENSE, observer=judge, held_out=held_out, **options)

    model, stage, result = judged(tmp_path / "whole")
    assert (result.best_step, result.best_score) == (4, 0.9)
    logged = {row["step"]: row.get("held_out_accuracy") for row in read_jsonl(stage.metrics)}
    assert logged == {1: None, 2: 0.3, 3: None, 4: 0.9, 5: None, 6: 0.5}
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path / "killed", kill_at=5)
    resumed, _, result = judged(tmp_path / "killed", start=5)
    assert (result.best_step, result.best_score) == (4, 0.9)
    assert same_weights(model, resumed)
    four, _, _ = run(tmp_path / "four", steps=4, config=DENSE, schedule=ScheduleConfig(kind="constant"))
    assert same_weights(model, four)


def test_weights_that_nothing_improved_upon_come_back(tmp_path):
    scores, recorder = iter([0.5, 0.5, 0.4]), Recorder()
    held_out = HeldOut("held_out_accuracy", lambda: next(scores))
    options = {"steps": 4, "config": DENSE, "evaluate_every_steps": 2}
    model, stage, result = run(tmp_path / "a", observer=recorder, held_out=held_out, **options)
    assert (result.step, result.best_step, result.best_score) == (4, 0, 0.5)
    assert same_weights(model, tiny_model(DENSE))
    assert [row.get("held_out_accuracy") for row in read_jsonl(stage.metrics)] == [None, 0.5, None, 0.4]
    (warning,) = recorder.warnings
    assert warning.startswith(
        "a: no weights scored above those that it began with (0.5), so these are kept; try a lower"
    )


class Recorder(Silent):
    def __init__(self):
        self.seen, self.warnings = [], []

    def on_step(self, progress):
        self.seen.append(progress)

    def on_warning(self, text):
        self.warnings.append(text)


def test_progress_tells_the_observer(tmp_path):
    recorder = Recorder()
    run(tmp_path / "base", steps=3, observer=recorder)
    assert [progress.step for progress in recorder.seen] == [1, 2, 3]
    assert {progress.stage for progress in recorder.seen} == {"base"}
    assert recorder.seen[-1].seconds_left == 0
    assert recorder.seen[0].seconds_left > 0
    assert recorder.seen[-1].tokens == 3 * 4 * 12


class SlowStream(RandomStream):
    """Each step takes `seconds` on a clock that is turned by hand."""

    def __init__(self, monkeypatch, seconds) -> None:
        super().__init__()
        self.now, self.seconds = 0.0, seconds
        # The loop's own view of the module: the clock itself is shared with the event loops of running servers.
        clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter=time.perf_counter)
        monkeypatch.setattr("octavo.train.pace.time", clock)

    def __next__(self):
        self.now += self.seconds
        return super().__next__()


def test_minutes_end_a_run_and_stretch_its_schedule(tmp_path, monkeypatch):
    """6 s a step: 10 steps in a minute, over the last 5 of which the rate falls."""
    schedule = ScheduleConfig(decay_share=0.5)
    stream = SlowStream(monkeypatch, 6.0)
    _, stage, result = run(tmp_path, steps=1000, stream=stream, minutes=1.0, schedule=schedule)
    assert result.step == 10
    rates = [row["learning_rate"] / 1e-2 for row in read_jsonl(stage.metrics)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_minutes_count_interrupted_pieces_together(tmp_path, monkeypatch):
    class Killed(Silent):
        def on_step(self, progress):
            if progress.step == 4:
                raise KeyboardInterrupt

    options = {"steps": 1000, "minutes": 1.0, "checkpoint_every_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stream=SlowStream(monkeypatch, 6.0), observer=Killed(), **options)
    _, _, result = run(tmp_path, stream=SlowStream(monkeypatch, 6.0), **options)
    assert result.step == 10


def test_scoring_the_start_takes_minutes_but_does_not_slow_the_pace(tmp_path, monkeypatch):
    """30 s of scoring leave 30 s for five steps of 6 s, and the first is planned as one of five."""
    stream = SlowStream(monkeypatch, 6.0)

    def score():
        stream.now += 0.0 if stream.now else 30.0
        return 1.0

    recorder = Recorder()
    held_out = HeldOut("accuracy", score)
    options = {"steps": 1000, "minutes": 1.0, "evaluate_every_steps": 100, "held_out": held_out}
    _, _, result = run(tmp_path, stream=stream, observer=recorder, **options)
    assert result.step == 5
    assert [progress.steps for progress in recorder.seen] == [5] * 5


def test_minutes_never_add_steps(tmp_path, monkeypatch):
    _, _, result = run(tmp_path, steps=3, stream=SlowStream(monkeypatch, 6.0), minutes=60.0)
    assert result.step == 3
