"""Sums in Portuguese: right, held out by their numbers, and the study in small."""

import json
import re
from pathlib import Path

import pytest
import torch

from octavo.cli import exit_code_of
from octavo.sweep_result import SweepResult
from octavo.tasks.questions import QuestionsTask, QuestionsTaskConfig
from octavo.tasks.self_test import require_sound, self_test

RECIPE = Path(__file__).parents[2] / "examples" / "sao-paulo" / "losses.yaml"
PLUS = "custam os dois|ganha mais|entram mais|noutra"
MINUS = "gastou R\\$ \\d+. Quanto sobrou|vendeu|troco|já li"
SMALL = (
    *("tokenizer.vocab_size=300", "base.loop.steps=1", "base.tokens_per_step=256", "base.tokens_per_row=256"),
    *("base.micro_batch_tokens=256", "base.model.layers=1", "evaluation.problems=6", "evaluation.samples=1"),
    *("evaluation.max_tokens=8", "tuned.loop.steps=1", "tuned.rollouts.prompts_per_rollout=2"),
    *(
        "tuned.rollouts.samples_per_prompt=2",
        "tuned.rollouts.max_completion_tokens=8",
        "tuned.rollouts.overlong_tokens=2",
    ),
    *("tuned.rollouts.max_resamples=0", "threads=1"),
)


def value_of(question: str) -> int:
    """The answer, from the words alone."""
    numbers = [int(text) for text in re.findall(r"\d+", question)]
    if bare := re.search(r"\d+(?: [+-] \d+)+", question):
        return eval(bare[0])
    if len(numbers) == 2:
        first, second = numbers
        assert bool(re.search(PLUS, question)) != bool(re.search(MINUS, question)), question
        return first + second if re.search(PLUS, question) else first - second
    first, second, third = numbers
    return first + second + (-third if re.search("Com quanto ficou|descem", question) else third)


def numbers_in(question: str) -> tuple[int, ...]:
    return tuple(sorted(int(text) for text in re.findall(r"\d+", question)))


@pytest.fixture(scope="module")
def folder(generate):
    return generate("sao-paulo/sums.py", ["--documents", "1500", "--train", "800", "--held-out", "100"])


@pytest.fixture(scope="module")
def task(folder):
    paths, held_out = (str(folder / "train.jsonl"),), (str(folder / "held-out.jsonl"),)
    return QuestionsTask(QuestionsTaskConfig(paths=paths, held_out=held_out, verifier="numeric"))


def test_every_answer_is_right(folder, rows):
    for row in [*rows(folder / "train.jsonl"), *rows(folder / "held-out.jsonl")]:
        assert int(row["answer"]) == value_of(row["question"]), row


def test_the_corpus_is_good_and_bad(folder, rows):
    right = [int(row["answer"]) == value_of(row["question"]) for row in rows(folder / "corpus.jsonl")]
    assert 0.6 < sum(right) / len(right) < 0.9


def test_no_held_out_sum_occurs_in_training_in_any_words(folder, rows, task):
    trained = {numbers_in(row["question"]) for row in rows(folder / "corpus.jsonl")}
    trained |= {numbers_in(row["question"]) for row in rows(folder / "train.jsonl")}
    measured = {numbers_in(task.problem("held_out", 0, index).question) for index in range(100)}
    assert len(measured) > 90
    assert not trained & measured


def test_the_verifier_is_sound(task):
    require_sound(self_test(task, [task.problem("held_out", 0, index) for index in range(32)]))


def test_the_study_in_small(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "data").mkdir(parents=True)
    (tmp_path / "runs" / "data" / "sao-paulo").symlink_to(folder)
    threads = torch.get_num_threads()
    options = [option for override in SMALL for option in ("--set", override)]
    code = exit_code_of(["run", str(RECIPE), "--sweep", "tuned.policy.kind=dapo,dr_grpo,grpo", *options])
    torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.count("base (pretrain)") == 1
    result = SweepResult.parse(json.loads(Path("runs/sao-paulo-sweep/sweep.json").read_text()), "sweep.json")
    assert [variant.value for variant in result.variants] == ["dapo", "dr_grpo", "grpo"]
    assert (result.stage, result.problems) == ("eval-tuned", 6)
    assert Path("runs/sao-paulo-sweep/sweep.md").read_text() == result.markdown()
