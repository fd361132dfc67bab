"""What is said when nobody is right, and when reward and held-out accuracy part."""

import pytest

from octavo.rundir import StageDir, append_jsonl
from octavo.stages.reward_watch import RewardWatch, nobody_is_right, reward_has_parted
from octavo.train.progress import Progress


def rows(*steps):
    """(share right in training, or with the share on validation questions)."""
    return [
        {"correct": step[0], "completions": 64.0, **({"validation_accuracy": step[1]} if len(step) > 1 else {})}
        for step in steps
    ]


def test_nobody_is_right_is_said_once_it_is_known():
    wrong = rows(*[(0.0,)] * 5)
    assert nobody_is_right(wrong[:4]) is None
    said = nobody_is_right(wrong)
    assert said is not None
    assert "none of 320 completions in the first 5 steps was right" in said
    assert nobody_is_right([*wrong[:4], *rows((0.01,))]) is None


PARTED = rows((0.5,), (0.5, 0.6), (0.7,), (0.8, 0.2))


def test_parting_is_said():
    said = reward_has_parted(PARTED, 64, "x/rollouts.jsonl")
    assert said is not None
    assert "since step 2 right answers in training rose from 50% to 75%" in said
    assert "they fell from 60% to 20%" in said
    assert "x/rollouts.jsonl" in said


@pytest.mark.parametrize(
    "calm",
    [
        rows((0.5,), (0.5, 0.6), (0.7,), (0.8, 0.55)),  # within chance
        rows((0.5,), (0.5, 0.6), (0.3,), (0.2, 0.2)),  # both fall: no reward is chased
        rows((0.5,), (0.5, 0.2), (0.7,), (0.8, 0.6)),
        rows((0.5,), (0.8, 0.2)),
        [*PARTED, *rows((0.9,))],  # said when it was judged
    ],
)
def test_nothing_is_said(calm):
    assert reward_has_parted(calm, 64, "") is None


class Heard:
    def __init__(self):
        self.steps, self.warnings = 0, []

    def on_step(self, progress):
        self.steps += 1

    def on_warning(self, text):
        self.warnings.append(text)


def test_a_resumed_stage_remembers_and_says_it_once(tmp_path):
    folder = StageDir(tmp_path)
    append_jsonl(folder.metrics, [{"step": n, **row} for n, row in enumerate(PARTED, start=1)])
    heard = Heard()
    watch = RewardWatch(heard, folder, 64)
    for step, row in enumerate([PARTED[3], *rows((0.9, 0.1))], start=4):
        watch.on_step(Progress("grpo", step, 9, 0, 0.0, row))
    assert heard.steps == 2
    assert len(heard.warnings) == 1
    assert heard.warnings[0].startswith("warning: reward and held-out accuracy part")
