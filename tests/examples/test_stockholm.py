"""Lines of invoices: what their JSON says is read from the line again, in another way."""

import json
import re
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig
from octavo.tasks.self_test import require_sound, self_test
from octavo.tasks.verifiers.json_schema import JsonSchemaConfig

MONTHS = ["januari", "februari", "mars", "april", "maj", "juni", "juli", "augusti", "september", "oktober"]
MONTHS += ["november", "december"]
DATES = (
    (r"\b(20\d\d)-(\d\d)-(\d\d)\b", lambda y, m, d: date(int(y), int(m), int(d))),
    (r"\b(\d+) ([a-z]+) (20\d\d)\b", lambda d, m, y: date(int(y), MONTHS.index(m) + 1, int(d))),
    (r"\b(\d+)/(\d+) (20\d\d)\b", lambda d, m, y: date(int(y), int(m), int(d))),
    (r"(?<![\d.,:])(2[345])(\d\d)(\d\d)\b(?![,:.]\d)", lambda y, m, d: date(2000 + int(y), int(m), int(d))),
)
MONEY = re.compile(r"(\d{1,3}(?:[ .]\d{3})+|\d+)(?:,(\d+)|:(\d\d)|:-)?( öre)?")


def dates(text: str) -> set[str]:
    found = set()
    for pattern, read in DATES:
        for match in re.finditer(pattern, text):
            try:
                found.add(read(*match.groups()).isoformat())
            except ValueError:  # digits of something else
                continue
    return found


def numbers(text: str) -> set[Fraction]:
    """Every number in the line, in kronor where it is in öre."""
    found = set()
    for whole, comma, colon, ore in MONEY.findall(text):
        value = Fraction(f"{re.sub('[ .]', '', whole)}.{comma or colon or 0}")
        found.add(value / 100 if ore else value)
    return found


@pytest.fixture(scope="module")
def folder(generate):
    return generate("stockholm/invoices.py", ["--train", "1500", "--held-out", "150"])


@pytest.fixture(scope="module")
def verifier(example):
    schema = Path(example("stockholm/invoices.py").__file__).with_name("schema.json")
    return JsonSchemaConfig(path=schema, compare="fields")


def test_the_json_says_what_the_line_says(folder, rows):
    made = [*rows(folder / "train.jsonl"), *rows(folder / "held-out.jsonl")]
    assert len({row["question"] for row in made}) == 1650
    for row in made:
        line, found = row["question"], json.loads(row["answer"])
        assert found["datum"] in dates(line), row
        for field in ("antal", "pris", "moms", "belopp"):
            assert Fraction(str(found[field])) in numbers(line), (field, row)
        assert found["artikel"] in line
        assert re.search(rf"\b{found['enhet']}\b", line)
        assert Fraction(str(found["antal"])) * Fraction(str(found["pris"])) == Fraction(str(found["belopp"]))


def test_lines_are_of_many_kinds(folder, rows):
    lines = [row["question"] for row in rows(folder / "train.jsonl")]
    kinds = (":-", r"\d:50", r"\d,90 kr", r"\d \d{3},00", r"\d\.\d{3},00", "SEK", " öre", r"\d%", " %", "à-pris", "à ")
    for kind in kinds:
        assert sum(bool(re.search(kind, line)) for line in lines) > 15, kind


def test_held_out_lines_are_new(folder, rows, example):
    def content(name):
        return [json.loads(row["answer"]) for row in rows(folder / name)]

    def key(found):
        return (found["artikel"], found["antal"], found["pris"])

    trained, measured = content("train.jsonl"), content("held-out.jsonl")
    assert not set(map(key, trained)) & set(map(key, measured))
    unseen = {article for article, *_ in example("stockholm/invoices.py").UNSEEN}
    assert not unseen & {found["artikel"] for found in trained}
    assert 0.2 < sum(found["artikel"] in unseen for found in measured) / len(measured) < 0.5


def test_fields_are_scored_one_by_one(folder, verifier):
    task = JsonlTask(JsonlTaskConfig(path=folder / "held-out.jsonl", measure_only=True, verifier=verifier))
    problem = task.problem("held_out", 0, 0)
    gold = json.loads(problem.answer)

    def score(**changed):
        return task.grade(problem, json.dumps({**gold, **changed})).score

    assert score() == 1.0
    assert score(belopp=gold["belopp"] + 1) == pytest.approx(6 / 7)
    assert score(belopp=gold["belopp"] + 1, enhet="x") == pytest.approx(5 / 7)
    assert score(moms=24) == 0.0  # not of the schema
    assert score(extra=1) == 0.0
    assert score(datum="14 mars 2024") <= 6 / 7


def test_the_verifier_is_sound(folder, verifier):
    task = JsonlTask(JsonlTaskConfig(path=folder / "held-out.jsonl", measure_only=True, verifier=verifier))
    report = self_test(task, [task.problem("held_out", 0, index) for index in range(48)])
    require_sound(report)
    assert not any(probe.unscored for probe in report.probes)
