import pytest

from octavo.config import Config
from octavo.errors import ConfigError
from octavo.tasks.build import TaskConfig, build_mixture, build_task
from octavo.tasks.verifiers.build import VERIFIER


class Holder(Config):
    tasks: tuple[TaskConfig, ...]


def test_kind_chooses_the_task(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(f'{{"question": "q{n}", "answer": "a"}}' for n in range(30)))
    holder = Holder.parse(
        {"tasks": [{"kind": "reasoning_gym", "name": "gcd", "weight": 3}, {"kind": "jsonl", "path": str(path)}]}
    )
    assert [build_task(config).name for config in holder.tasks] == ["gcd", "mine"]
    mixed = build_mixture(holder.tasks)
    assert [mixed.problem("train", 0, i).task for i in range(8)].count("gcd") == 6
    assert Holder.parse(holder.dump()) == holder


def test_unknown_keys_are_named():
    with pytest.raises(ConfigError, match="did you mean params"):
        Holder.parse({"tasks": [{"kind": "reasoning_gym", "name": "gcd", "param": {}}]})


@pytest.mark.parametrize(
    "verifier",
    [
        {"kind": "json_schema", "json_schema": {"required": ["a", "b"]}, "compare": "fields", "fields": ["a", "b.0"]},
        {
            "kind": "weighted",
            "parts": [{"verifier": {"kind": "exact"}}, {"verifier": {"kind": "numeric"}, "weight": 2}],
        },
        "checks.py:score",
    ],
)
def test_verifiers_are_read_from_plain_values_and_sent_to_workers(verifier):
    holder = Holder.parse({"tasks": [{"kind": "jsonl", "path": "x.jsonl", "verifier": verifier}]})
    config = holder.tasks[0].verifier
    assert Holder.parse(holder.dump()) == holder
    assert VERIFIER.validate_json(VERIFIER.dump_json(config)) == config
