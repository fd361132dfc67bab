"""What is typed after --verifier and --column."""

import json

import pytest

from octavo.adapt.wishes import parse_columns, parse_verifier
from octavo.errors import ConfigError
from octavo.tasks.verifiers.build import VERIFIER


def test_verifiers_as_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checks.py").write_text("def tidy(question, answer, gold): return 1\n")
    assert parse_verifier("numeric")["kind"] == "numeric"
    assert parse_verifier("gym")["kind"] == "reasoning_gym"
    assert parse_verifier("{kind: numeric, tolerance: 0.01}")["tolerance"] == 0.01
    assert parse_verifier("invoice.json") == parse_verifier("{kind: json_schema, path: invoice.json}")
    assert parse_verifier("checks.py:tidy") == {**parse_verifier("{kind: python, function: 'checks.py:tidy'}")}
    weighted = parse_verifier("0.8*numeric + 0.2*checks.py:tidy")
    assert [(part["weight"], part["verifier"]["kind"]) for part in weighted["parts"]] == [
        (0.8, "numeric"),
        (0.2, "python"),
    ]
    for values in (parse_verifier("choice"), weighted):
        VERIFIER.validate_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "numeric +", "0.5*", "{kind: numeric", "{tolerance: 1}", "[numeric]"])
def test_what_is_no_verifier(text):
    with pytest.raises(ConfigError, match="--verifier"):
        parse_verifier(text)


def test_columns():
    assert parse_columns(["question=frage", "answer = antwort"]) == {"question": "frage", "answer": "antwort"}
    with pytest.raises(ConfigError, match="expected ROLE=NAME"):
        parse_columns(["question="])
