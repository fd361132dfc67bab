"""Metrics over time, thinned; and what of them is shown together."""

import pytest

from made_run import make_run, write_lines
from octavo.serve.runs.curves import read_curves, thinned


def test_charts_of_a_training_stage(tmp_path):
    run = make_run(tmp_path)
    made = read_curves(run.stage("base").metrics)
    charts = {chart.key: chart for chart in made.charts}
    assert list(charts) == ["loss", "experts", "throughput"]
    (loss,) = charts["loss"].curves
    assert loss.points == ((1.0, 6.0), (2.0, 3.0), (3.0, 2.0), (4.0, 1.5))
    assert loss.latest == 1.5
    # Each sparse layer is a curve; without them there would be one, of the worst.
    assert [curve.metric for curve in charts["experts"].curves] == ["expert_load_max_1", "expert_load_max_2"]


def test_charts_of_reinforcement(tmp_path):
    made = read_curves(make_run(tmp_path).stage("rl").metrics)
    charts = {chart.key: chart for chart in made.charts}
    assert list(charts) == ["loss", "accuracy", "reward", "length", "entropy", "groups", "throughput"]
    validation, training = charts["accuracy"].curves
    assert validation.points == ((2.0, 2 / 12), (4.0, 4 / 12), (6.0, 0.5))  # only where it was measured
    assert len(training.points) == 6


def test_runs_from_before_layers_were_told_apart_show_the_worst(tmp_path):
    write_lines(tmp_path / "m", [{"step": 1, "expert_load_max": 2.0}])
    (chart,) = read_curves(tmp_path / "m").charts
    assert [curve.metric for curve in chart.curves] == ["expert_load_max"]


def test_steps_and_values_that_are_none_are_passed_over(tmp_path):
    rows = [{"step": "1", "loss": 1.0}, {"step": True, "loss": 1.0}, {"step": -1, "loss": 1.0}, {"loss": 1.0}]
    rows += [
        {"step": 2**60, "loss": 1.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": 1e308},
        {"step": 4, "loss": 2.0},
    ]
    write_lines(tmp_path / "m", rows)
    (chart,) = read_curves(tmp_path / "m").charts
    assert chart.curves[0].points == ((4.0, 2.0),)


def test_thinning_keeps_means_and_both_ends():
    points = [(float(step), float(step % 2)) for step in range(1000)]
    thin = thinned(points, most=10)
    assert len(thin) == 10
    assert [value for _, value in thin] == [0.5] * 10
    assert thin[0][0] == pytest.approx(49.5)
    assert thin[-1][0] == pytest.approx(949.5)
    assert thinned(points[:10], most=10) == tuple(points[:10])
