"""Dose questions: recomputed from their text alone, without the generator's own arithmetic."""

import re
from fractions import Fraction

import pytest

from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig
from octavo.tasks.quantities import parse_quantity
from octavo.tasks.self_test import require_sound, self_test

FACTS = {
    "kg": r"(?:weighs|weight is) (\d+) kg|(?:uzito wa|mgonjwa ni) kilo (\d+)",
    "dose": r"(\d+) mg(?: per |/)kg|mg (\d+) kwa (?:kila )?kilo",
    "limit": r"(?:exceed|maximum is) (\d+) mg|(?:isizidi|juu ni) mg (\d+)",
    "mg": r"(?:has|says) (\d+) mg|(?:ina|imeandikwa) mg (\d+)",
    "ml": r"(?:in|per) (\d+) ml|(?:katika|kwa) ml (\d+)",
}
GONE = {
    "kg": ("The weight is missing.", "Uzito haujatajwa."),
    "dose": ("The dose per kg is missing.", "Dozi kwa kilo haijatajwa."),
    "mg": ("The strength is missing.", "Nguvu ya dawa haijatajwa."),
}


def solve(question: str, language: str) -> str:
    """The right answer, from what the question says."""
    found = {name: re.search(pattern, question) for name, pattern in FACTS.items()}
    facts = {name: int(match[1] or match[2]) for name, match in found.items() if match}
    in_ml = bool(re.search(r"How many ml|ml ngapi", question))
    for name in ("kg", "dose", *(["mg"] if in_ml else [])):
        if name not in facts:
            return GONE[name][language == "sw"]
    given = Fraction(min(facts["kg"] * facts["dose"], facts.get("limit", 10**6)))
    value = given * facts["ml"] / facts["mg"] if in_ml else given
    return f"{float(value):g} {'ml' if in_ml else 'mg'}"


@pytest.fixture(scope="module")
def folder(generate):
    return generate("nairobi/questions.py", ["--train", "1500", "--held-out", "150"])


@pytest.fixture(scope="module")
def score(example):
    return example("nairobi/dose.py").score


def test_every_answer_is_right(folder, rows):
    made = [*rows(folder / "train.jsonl"), *rows(folder / "held-out.jsonl")]
    assert len(made) == 1650
    for row in made:
        assert row["answer"] == solve(row["question"], row["language"]), row
        assert bool(row["missing"]) == (parse_quantity(row["answer"]) is None), row


def test_every_step_is_right(folder, rows):
    steps = 0
    for row in rows(folder / "train.jsonl"):
        for chain in re.findall(r"[\d.x/+]+(?:=[\d.x/+]+)+", row["reasoning"]):
            values = [eval(side.rstrip(".").replace("x", "*")) for side in chain.split("=")]
            assert values == pytest.approx([values[0]] * len(values)), row
            steps += 1
        if row["missing"]:
            assert row["reasoning"].count("?") == 1
    assert steps > 1500


def test_what_is_multiplied_in_a_held_out_question_is_multiplied_in_no_other(folder, rows):
    def products(name):
        texts = [row["reasoning"] for row in rows(folder / name)]
        return {match[0] for text in texts if (match := re.search(r"\d+x\d+", text))}

    held_out = products("held-out.jsonl")
    assert len(held_out) > 20
    assert not held_out & products("train.jsonl")


def test_all_kinds_of_questions_occur_in_both_languages(folder, rows):
    made = rows(folder / "train.jsonl")
    for language in ("en", "sw"):
        spoken = [row for row in made if row["language"] == language]
        assert len(spoken) == 750
        assert {row["missing"] for row in spoken} == {"", "weight", "dose", "strength"}
        assert 0.08 < sum(bool(row["missing"]) for row in spoken) / 750 < 0.2
        assert 0.1 < sum("mg" in row["answer"] for row in spoken) / 750 < 0.3
        assert 0.1 < sum(re.search("Over|Inazidi", row["reasoning"]) is not None for row in spoken) / 750 < 0.4


@pytest.mark.parametrize(
    ("answer", "gold", "missing", "right"),
    [
        ("8.4 ml", "8.4 ml", "", True),
        ("0.0084 l", "8.4 ml", "", True),
        ("8.4", "8.4 ml", "", False),
        ("8.4 mg", "8.4 ml", "", False),
        ("8.5 ml", "8.4 ml", "", False),
        ("84 ml", "8.4 ml", "", False),
        ("0.21 g", "210 mg", "", True),
        ("8.4 ml", "Uzito haujatajwa.", "weight", False),
        ("uzito haujatajwa", "Uzito haujatajwa.", "weight", True),
        ("Dozi kwa kilo haijatajwa.", "Uzito haujatajwa.", "weight", False),
        ("The weight is missing.", "Uzito haujatajwa.", "weight", False),
        ("Uzito haujatajwa. Dozi kwa kilo haijatajwa.", "Uzito haujatajwa.", "weight", False),
        ("The weight is missing.", "8.4 ml", "", False),
    ],
)
def test_the_verifier(score, answer, gold, missing, right):
    assert score("", answer, gold, missing) is right


def test_the_verifier_is_sound(folder, example):
    path = example("nairobi/dose.py").__file__
    config = JsonlTaskConfig(path=folder / "held-out.jsonl", measure_only=True, verifier=f"{path}:score")
    task = JsonlTask(config)
    report = self_test(task, [task.problem("held_out", 0, index) for index in range(48)])
    require_sound(report)
    assert not any(probe.unscored for probe in report.probes)
