"""A recipe that starts from open weights: opened, measured on text, taught by another model."""

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from octavo.console import JsonDisplay
from octavo.errors import CheckpointError, ConfigError
from octavo.press import Press
from octavo.recipe import parse_recipe
from octavo.rundir import StageDir
from octavo.stages.stage import load_teacher
from octavo.weights.hf import load_tokenizer
from tiny_recipe import RECIPE

FROM_WEIGHTS = """
name: further
threads: 1
tasks:
  gcd: {{kind: reasoning_gym, name: gcd, params: {{max_value: 20}}}}
evaluation: {{problems: 4, samples: 2, max_tokens: 16}}
stages:
  student: {{kind: open, weights: {student}}}
  teacher: {{kind: open, weights: {teacher}}}
  text-before: {{kind: text_score, model: student, text: {{paths: [{text}]}}}}
  taught:
    kind: on_policy_distill
    model: student
    teacher: teacher
    optimizer: {{learning_rate: 0.003}}
    prompts_per_step: 4
    max_completion_tokens: 12
    micro_batch_tokens: 256
    loop: {{steps: 3}}
  text-after: {{kind: text_score, model: taught, text: {{paths: [{text}]}}}}
result: taught
"""


def press(recipe, folder, overrides=()):
    shown = io.StringIO()
    Press(parse_recipe(recipe, "tiny", overrides), folder, JsonDisplay(shown)).run()
    return [json.loads(line) for line in shown.getvalue().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs with a model of one vocabulary at two ages, and one of another vocabulary."""
    folder = tmp_path_factory.mktemp("made")
    press(RECIPE, folder / "one")
    press(RECIPE, folder / "two", ["tokenizer.vocab_size=270"])
    (folder / "story.txt").write_text("Once upon a time there was a model that read.\n")
    return folder


def recipe(made, student, teacher):
    return FROM_WEIGHTS.format(student=made / student, teacher=made / teacher, text=made / "story.txt")


def started(events):
    return [event["stage"] for event in events if event["event"] == "stage_started"]


def test_a_model_is_opened_measured_and_taught(made, tmp_path):
    run = recipe(made, "one/base", "one/tuned")
    events = press(run, tmp_path / "run")
    assert started(events) == ["student", "teacher", "text-before", "taught", "text-after"]
    before, after = (
        json.loads((tmp_path / "run" / f"text-{x}" / "text_score.json").read_text()) for x in ("before", "after")
    )
    assert before["tokens"] == after["tokens"]
    assert before["nats_per_token"] != after["nats_per_token"]
    assert started(press(run, tmp_path / "run")) == []


def test_other_weights_under_the_same_name_are_noticed(made, tmp_path):
    press(RECIPE, tmp_path / "source")
    run = recipe(tmp_path, "source/base", "source/tuned").replace(str(tmp_path / "story.txt"), str(made / "story.txt"))
    press(run, tmp_path / "run")
    press(RECIPE, tmp_path / "source", ["base.loop.steps=4"])
    assert "student" in started(press(run, tmp_path / "run"))


def test_a_teacher_of_another_vocabulary_is_refused(made, tmp_path):
    with pytest.raises(ConfigError, match="different vocabularies"):
        press(recipe(made, "one/base", "two/base"), tmp_path / "run")


def test_a_teacher_with_as_many_other_tokens_is_refused_too(made, tmp_path):
    """Nothing but the spelling of the tokens tells them apart."""
    corpus = f"tokenizer.corpus={{kind: files, paths: ['{made / 'story.txt'}']}}"
    press(RECIPE, tmp_path / "other", [corpus, "tuned.loop.steps=1"])
    own, other = (load_tokenizer(folder / "base" / "model") for folder in (made / "one", tmp_path / "other"))
    assert own.vocab_size == other.vocab_size
    folder = StageDir(tmp_path / "taught")
    workshop: Any = SimpleNamespace(folder=folder, sources={"teacher": StageDir(tmp_path / "other" / "base")})
    assert load_teacher(workshop, other).config.vocab_size == other.vocab_size
    with pytest.raises(ConfigError, match="taught: student and teacher have different vocabularies"):
        load_teacher(workshop, own)


def test_weights_that_are_not_there_are_said_before_anything_runs(made, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        press(recipe(made, "one/base", "nowhere/at/all"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
