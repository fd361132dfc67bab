"""Dose questions in Swahili and English, with worked answers: train.jsonl and held-out.jsonl.

    python questions.py FOLDER [--train 4000] [--held-out 200] [--seed 0]

A question gives a weight (kg), a dose (mg a kg), mostly a maximum (mg) and a strength (mg in some ml), and asks for mg
or ml. In one of seven a number that is needed is not there; then the right answer says which. A weight and a dose that
are multiplied in a held-out question occur together in no training question.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

DOSES = (5, 10, 15, 20, 25, 30, 40, 50)
STRENGTHS = ((50, 5), (100, 5), (125, 5), (250, 5), (500, 5), (10, 1), (20, 1), (25, 1), (50, 1), (100, 1))
LIMITS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 750, 1000)
HELD_OUT_SHARE, MISSING_SHARE, MG_SHARE, LIMIT_SHARE, AGE_SHARE = 0.15, 1 / 7, 0.2, 0.6, 0.25

WORDS = {
    "en": {
        "weight": ("The child weighs {kg} kg.", "The patient's weight is {kg} kg."),
        "dose": ("The dose is {dose} mg per kg.", "The doctor wrote {dose} mg/kg."),
        "limit": ("The dose must not exceed {limit} mg.", "The maximum is {limit} mg."),
        "strength": ("The liquid has {mg} mg in {ml} ml.", "The bottle says {mg} mg per {ml} ml."),
        "age": ("The child is {age} years old.",),
        "ml": ("How many ml should be given?", "How many ml is one dose?"),
        "mg": ("How many mg should be given?", "How many mg is one dose?"),
        "within": "Not over {limit}.",
        "over": "Over {limit}: {limit} mg.",
        "no weight": "The weight is missing.",
        "no dose": "The dose per kg is missing.",
        "no strength": "The strength is missing.",
    },
    "sw": {
        "weight": ("Mtoto ana uzito wa kilo {kg}.", "Uzito wa mgonjwa ni kilo {kg}."),
        "dose": ("Dozi ni mg {dose} kwa kila kilo.", "Daktari ameandika mg {dose} kwa kilo."),
        "limit": ("Dozi isizidi mg {limit}.", "Kiwango cha juu ni mg {limit}."),
        "strength": ("Dawa ya maji ina mg {mg} katika ml {ml}.", "Chupa imeandikwa mg {mg} kwa ml {ml}."),
        "age": ("Mtoto ana miaka {age}.",),
        "ml": ("Apewe ml ngapi?", "Dozi moja ni ml ngapi?"),
        "mg": ("Apewe mg ngapi?", "Dozi moja ni mg ngapi?"),
        "within": "Haizidi {limit}.",
        "over": "Inazidi {limit}: mg {limit}.",
        "no weight": "Uzito haujatajwa.",
        "no dose": "Dozi kwa kilo haijatajwa.",
        "no strength": "Nguvu ya dawa haijatajwa.",
    },
}


def held_out(kg: int, dose: int) -> bool:
    """Whether questions with this product are asked only to measure."""
    digest = hashlib.sha256(f"{kg} x {dose}".encode()).digest()
    return digest[0] < HELD_OUT_SHARE * 256


def questions(count: int, measured: bool, seed: int, known: set[str]) -> Iterator[dict[str, str]]:
    """`count` questions that are not `known` yet, in turn in each language."""
    rng = random.Random(f"{seed} {measured}")
    written = 0
    while written < count:
        row = _question(rng, measured, ("en", "sw")[written % 2])
        if row["question"] not in known:
            known.add(row["question"])
            written += 1
            yield row


def _question(rng: random.Random, measured: bool, language: str) -> dict[str, str]:
    words = WORDS[language]
    while held_out(kg := rng.randint(3, 40), dose := rng.choice(DOSES)) != measured:
        pass
    mg, ml = rng.choice(STRENGTHS)
    wanted = "mg" if rng.random() < MG_SHARE else "ml"
    near = [limit for limit in LIMITS if kg * dose / 2 < limit < kg * dose * 3]
    facts = {"kg": kg, "dose": dose, "mg": mg, "ml": ml, "age": max(2, (kg - 7) // 2)}
    needed = ["weight", "dose", *(["strength"] if wanted == "ml" else [])]
    missing = rng.choice(needed) if rng.random() < MISSING_SHARE else ""
    told = [name for name in needed if name != missing]
    if near and rng.random() < LIMIT_SHARE:
        facts["limit"] = rng.choice(near)
        told.append("limit")
    if rng.random() < AGE_SHARE:
        told.append("age")
    if wanted == "mg" and rng.random() < 0.5:
        told.append("strength")
    rng.shuffle(told)
    question = " ".join(rng.choice(words[name]) for name in (*told, wanted)).format(**facts)
    steps, answer = _work(words, wanted, missing, facts)
    return {
        "question": question,
        "reasoning": " ".join(steps),
        "answer": answer,
        "language": language,
        "missing": missing,
    }


def _work(words: dict, wanted: str, missing: str, facts: dict[str, int]) -> tuple[list[str], str]:
    """The steps of the answer, up to where a number is missing, and the answer."""
    kg, dose, limit = facts["kg"], facts["dose"], facts.get("limit")
    if missing in ("weight", "dose"):
        shown = f"?x{dose}" if missing == "weight" else f"{kg}x?"
        return [f"{shown}."], words[f"no {missing}"]
    steps = [f"{_product(kg, dose)} mg."]
    given = kg * dose
    if limit is not None:
        steps.append(words["over" if given > limit else "within"].format(**facts))
        given = min(given, limit)
    if wanted == "mg":
        return steps, f"{given} mg"
    if missing:
        return [*steps, f"{given}/?."], words["no strength"]
    each = facts["mg"] // facts["ml"]
    if facts["ml"] > 1:
        steps.append(f"{facts['mg']}/{facts['ml']}={each}.")
    return [*steps, f"{_quotient(given, each)}."], f"{_decimal(Fraction(given, each))} ml"


def _product(kg: int, dose: int) -> str:
    """14x15=150+60=210: the tens, then the rest."""
    tens, rest = kg // 10 * 10, kg % 10
    by_parts = f"{tens * dose}+{rest * dose}=" if tens and rest else ""
    return f"{kg}x{dose}={by_parts}{kg * dose}"


def _quotient(given: int, each: int) -> str:
    """210/25=840/100=8.4: by way of tens or hundreds."""
    factor, power = {10: (1, 10), 100: (1, 100), 20: (Fraction(1, 2), 10), 50: (2, 100), 25: (4, 100)}[each]
    way = f"{_decimal(given * Fraction(factor))}/{power}=" if factor != 1 else ""
    return f"{given}/{each}={way}{_decimal(Fraction(given, each))}"


def _decimal(value: Fraction) -> str:
    """With as many decimals as it has, at most two here."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    known: set[str] = set()
    for name, count, measured in (("held-out", asked.held_out, True), ("train", asked.train, False)):
        lines = (json.dumps(row, ensure_ascii=False) for row in questions(count, measured, asked.seed, known))
        (asked.folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
