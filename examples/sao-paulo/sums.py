"""Sums in Portuguese: corpus.jsonl to press a model from, train.jsonl to reinforce and held-out.jsonl to measure it.

    python sums.py FOLDER [--documents 40000] [--train 5000] [--held-out 300] [--seed 0]

The corpus is as text is: work written out by tens and units, work done in the head, mistakes found and mended, guesses,
slips that nobody noticed. What is held out is decided by the numbers of a sum, whatever words it is asked in, so that
none of them occurs in training.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from octavo.tasks.held_out import split_of
from octavo.tasks.solutions.writer import Style, write
from octavo.tasks.types import Problem

STYLES: dict[Style, float] = {"long": 5, "steps": 3, "mend": 1, "direct": 1, "skip": 2, "slip": 2}
PLAIN = ("Quanto é {sum}?", "Calcule {sum}.", "Qual é o resultado de {sum}?", "{sum} = ?")
WORDS: dict[str, tuple[str, ...]] = {
    "+": (
        "Um livro custa R$ {a} e um caderno custa R$ {b}. Quanto custam os dois?",
        "Ana tem {a} figurinhas e ganha mais {b}. Com quantas ela fica?",
        "No ônibus há {a} pessoas e entram mais {b}. Quantas há agora?",
        "Numa rua há {a} árvores e noutra há {b}. Quantas há nas duas?",
    ),
    "-": (
        "Pedro tinha R$ {a} e gastou R$ {b}. Quanto sobrou?",
        "A padaria fez {a} pães e vendeu {b}. Quantos restam?",
        "Paguei com R$ {a} uma conta de R$ {b}. Quanto é o troco?",
        "O livro tem {a} páginas e já li {b}. Quantas faltam?",
    ),
    "++": (
        "Na feira gastei R$ {a}, R$ {b} e R$ {c}. Quanto gastei ao todo?",
        "Três turmas têm {a}, {b} e {c} alunos. Quantos são no total?",
    ),
    "+-": (
        "Ana tinha R$ {a}, ganhou R$ {b} e gastou R$ {c}. Com quanto ficou?",
        "No metrô há {a} pessoas, entram {b} e descem {c}. Quantas ficam?",
    ),
}


def problem(rng: random.Random) -> Problem:
    """A sum of two or three numbers, in words or bare."""
    signs = rng.choice(tuple(WORDS))
    while True:
        a, b, c = (rng.randint(10, 99) for _ in range(3))
        value = a + (b if signs[0] == "+" else -b) + {"": 0, "+": c, "-": -c}[signs[1:]]
        if value > 0:
            break
    bare = f"{a} {signs[0]} {b}" + (f" {signs[1]} {c}" if signs[1:] else "")
    text = rng.choice(WORDS[signs] if rng.random() < 0.6 else PLAIN).format(sum=bare, a=a, b=b, c=c)
    facts = {"source_dataset": "chain_sum", "expression": bare}
    return Problem("", "sums", text, str(value), language="pt", metadata=facts)


def is_held_out(asked: Problem) -> bool:
    """By the numbers, in any order."""
    return split_of("chain_sum", " ".join(sorted(re.findall(r"\d+", asked.metadata["expression"])))) == "held_out"


def documents(count: int, seed: int) -> Iterator[dict[str, str]]:
    """Worked answers to questions of the training split, good ones and bad ones."""
    rng = random.Random(f"{seed} documents")
    while count:
        asked = problem(rng)
        if is_held_out(asked):
            continue
        style = rng.choices(list(STYLES), list(STYLES.values()))[0]
        written = write(asked, style, "pt", rng)
        yield {"question": asked.question, "reasoning": written.reasoning, "answer": written.answer}
        count -= 1


def questions(count: int, measured: bool, seed: int) -> Iterator[dict[str, str]]:
    """`count` different questions."""
    rng = random.Random(f"{seed} {measured}")
    known: set[str] = set()
    while len(known) < count:
        asked = problem(rng)
        if is_held_out(asked) == measured and asked.question not in known:
            known.add(asked.question)
            yield {"question": asked.question, "answer": asked.answer, "language": "pt"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=40000)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("corpus", documents(asked.documents, asked.seed)),
        ("train", questions(asked.train, False, asked.seed)),
        ("held-out", questions(asked.held_out, True, asked.seed)),
    ):
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (asked.folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
