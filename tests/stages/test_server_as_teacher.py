"""A recipe whose teacher is a server: sampled, verified, learned from; and a server that goes away half-way."""

import io
import json
import math
import re

import pytest

from fake_server import FakeServer, Said, fake_server, reply
from octavo.cli import exit_code_of
from octavo.console import JsonDisplay
from octavo.errors import ConfigError, TrainingError
from octavo.press import Press
from octavo.recipe import identities, parse_recipe
from octavo.rundir import RunDir
from tiny_recipe import RECIPE

TAUGHT = """
name: taught
threads: 1
tasks:
  gcd: {{kind: reasoning_gym, name: gcd, params: {{max_value: 20}}}}
stages:
  start: {{kind: open, weights: {start}}}
  samples:
    kind: sample
    teacher: {{url: "{url}", model: big, key_env: OCTAVO_TEST_KEY, parallel: 1, tries: 2, longest_wait_seconds: 0.01}}
    problems: 8
    samples: 2
    max_tokens: 64
    problems_per_chunk: 4
  learned:
    kind: sft
    model: start
    data: samples
    optimizer: {{learning_rate: 0.003}}
    tokens_per_step: 256
    tokens_per_row: 128
    micro_batch_tokens: 256
    loop: {{steps: 2}}
result: learned
"""


def solve(number: int, body: dict) -> Said:
    """The first sample of each problem is right, the second wrong (seeds differ; what was asked before is counted)."""
    question = body["messages"][-1]["content"]
    right = math.gcd(*map(int, re.findall(r"\d+", question)))
    answer = right if body["seed"] % 3 else right + 1
    return reply(f"<answer>{answer}</answer>", reasoning_content="it divides both of them without a rest")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "run"
    recipe = parse_recipe(RECIPE, "tiny", ["tuned.loop.steps=1", "evaluation.problems=2"])
    Press(recipe, folder, JsonDisplay(io.StringIO())).run()
    return folder / "base"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OCTAVO_TEST_KEY", "sk-secret")
    with fake_server() as server:
        server.script = solve
        yield server


def press(server: FakeServer, start, folder, overrides=()) -> str:
    shown = io.StringIO()
    recipe = parse_recipe(TAUGHT.format(start=start, url=server.url), "taught", overrides)
    Press(recipe, folder, JsonDisplay(shown)).run()
    return shown.getvalue()


def test_verified_answers_are_learned_and_the_key_is_nowhere(server, start, tmp_path):
    shown = press(server, start, tmp_path / "run")
    assert len(server.bodies) == 16
    rows = [json.loads(line) for line in (tmp_path / "run/samples/samples.jsonl").read_text().splitlines()]
    wrong = sum(body["seed"] % 3 == 0 for body in server.bodies)
    assert 0 < wrong < 16
    assert 0 < len(rows) <= 8  # both samples of a problem are worded alike, and one of them is kept
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        gold = math.gcd(*map(int, re.findall(r"\d+", question)))
        assert answer == f"<think>it divides both of them without a rest</think><answer>{gold}</answer>"
    assert (tmp_path / "run/learned/model/model.safetensors").exists()
    (entry,) = [entry for entry in RunDir(tmp_path / "run").read_ledger() if entry.stage == "samples"]
    assert (entry.tokens, entry.flops) == (8 * 11 + 16 * 7, 0.0)
    assert not (tmp_path / "run/samples/state").exists()
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [content for content in [*written, shown.encode()] if b"sk-secret" in content]


def test_half_way_it_stops_and_goes_on_with_what_is_missing(server, start, tmp_path):
    press(server, start, tmp_path / "whole")
    asked_before = len(server.bodies)
    server.script = lambda number, body: solve(number, body) if number < asked_before + 11 else Said({}, 503)
    with pytest.raises(TrainingError, match="2 times in a row; 11 replies are kept, and the same command goes on"):
        press(server, start, tmp_path / "run")
    server.script = solve
    server.bodies.clear()
    # Also where the user is more patient now: only what decides the answers makes it another stage.
    press(server, start, tmp_path / "run", ["samples.teacher.tries=5", "samples.teacher.parallel=3"])
    assert len(server.bodies) == 5
    for name in ("samples/samples.jsonl", "learned/model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_teacher_is_another_stage(server, start):
    def fingerprint(*overrides):
        recipe = parse_recipe(TAUGHT.format(start=start, url=server.url), "taught", overrides)
        return identities(recipe)["samples"].fingerprint

    assert fingerprint() == fingerprint("samples.teacher.timeout_seconds=9", "samples.teacher.key_env=X")
    assert len({fingerprint(), fingerprint("samples.teacher.model=small"), fingerprint("samples.max_tokens=9")}) == 3


def test_the_command_says_what_is_wrong_in_one_line(server, start, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "taught.yaml"
    recipe.write_text(TAUGHT.format(start=start, url=server.url))
    command = ["run", str(recipe), "--out", str(tmp_path / "run")]
    server.script = lambda number, body: Said({"error": {"message": "wrong: sk-secret"}}, 401)
    assert exit_code_of(command) == 2
    assert "refuses the key in OCTAVO_TEST_KEY (status 401)" in capsys.readouterr().err
    server.script = lambda number, body: Said({}, 503)
    assert exit_code_of(command) == 3
    assert "the server is busy or failing (status 503), 2 times in a row" in capsys.readouterr().err
    monkeypatch.delenv("OCTAVO_TEST_KEY")
    assert exit_code_of(command) == 2
    assert "the environment variable OCTAVO_TEST_KEY is not set" in capsys.readouterr().err


@pytest.mark.parametrize("overrides", [["samples.model=start"], ["samples.teacher=null"]])
def test_either_a_stage_or_a_server(server, start, overrides):
    with pytest.raises(ConfigError, match=r"expected either model \(a stage\) or teacher \(a server\)"):
        parse_recipe(TAUGHT.format(start=start, url=server.url), "taught", overrides)
