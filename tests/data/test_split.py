"""Held-out questions: never asked in training, the same for the same seed, and what is said of them."""

import random

import pytest

from octavo.data.examples import Example
from octavo.data.split import SplitConfig, question_key, split_by_file, split_questions
from octavo.errors import DataError
from octavo.text.messages import Message

NAMES = [
    "ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "imp", "jay",
    "koi", "lynx", "mole", "newt", "owl", "pig", "quail", "rat", "seal", "toad",
]  # fmt: skip


def ask(question: str, answer: str | None = "a", reply: str | None = None, where: str = "") -> Example:
    message = None if reply is None else Message("assistant", reply)
    return Example((Message("user", question),), answer, message, where=where)


def texts(examples) -> set[str]:
    return {example.messages[-1].content for example in examples}


def test_the_split_depends_on_the_questions_and_the_seed_alone():
    examples = [ask(f"What does a {name} {verb}?") for name in NAMES for verb in ("eat", "drink", "fear")]
    split = split_questions(examples, SplitConfig(), seed=0)
    assert (len(split.train), len(split.held_out)) == (48, 12)
    assert texts(split.train) | texts(split.held_out) == texts(examples)
    shuffled = random.Random(1).sample(examples, len(examples))
    assert texts(split_questions(shuffled, SplitConfig(), seed=0).held_out) == texts(split.held_out)
    assert texts(split_questions(examples, SplitConfig(), seed=1).held_out) != texts(split.held_out)
    # One question more moves at most one across.
    more = split_questions([*examples, ask("What does a yak eat?")], SplitConfig(), seed=0)
    assert len(texts(more.held_out) ^ texts(split.held_out)) <= 2


@pytest.mark.parametrize(
    ("questions", "config", "held_out"),
    [
        (20, SplitConfig(), 10),
        (100, SplitConfig(), 20),
        (100, SplitConfig(at_most=7), 7),
        (30, SplitConfig(share=0.9), 15),
    ],
)
def test_how_many_are_held_out(questions: int, config: SplitConfig, held_out: int):
    examples = [ask(f"{name} {number}") for number in range(5) for name in NAMES][:questions]
    assert len(split_questions(examples, config, seed=0).held_out) == held_out


def test_copies_of_a_question_lie_on_one_side():
    examples = [ask(f"What is a {name}?", name) for name in NAMES]
    copies = [ask(f"  what IS\na {name}?", name) for name in NAMES]
    split = split_questions(examples + copies, SplitConfig(), seed=0)
    assert not {question_key(e) for e in split.train} & {question_key(e) for e in split.held_out}
    assert (len(split.train), len(split.held_out)) == (10, 10)
    assert "20 rows repeat another one, and are left out" in split.warnings


def test_several_worked_answers_are_all_learned_and_measured_once():
    examples = [ask(f"What is a {name}?", name, way) for name in NAMES for way in ("so", "or so")]
    split = split_questions(examples, SplitConfig(), seed=0)
    assert (len(split.train), len(split.held_out)) == (20, 10)


def test_only_questions_with_an_answer_are_held_out():
    examples = [ask(f"What is a {name}?") for name in NAMES]
    unanswered = [ask(f"Write about a {name}.", None, "text") for name in NAMES]
    split = split_questions(examples + unanswered, SplitConfig(), seed=0)
    assert len(split.held_out) == 10
    assert all(example.answer for example in split.held_out)
    assert len(split.train) == 30


def test_near_copies_are_counted_not_removed():
    examples = [ask(f"How much is {a} + {b}?", str(a + b)) for a in range(5) for b in range(5)]
    split = split_questions(examples, SplitConfig(), seed=0)
    assert len(split.train) + len(split.held_out) == 25
    assert split.warnings == (
        "10 of 10 held-out questions differ from one in training in digits and punctuation only: "
        "the score says how well the model does on such questions, not on new kinds",
    )


def test_contradictions_are_told_with_their_places():
    examples = [ask(f"What is a {name}?", name) for name in NAMES]
    examples += [ask("What is a cat?", "CAT"), ask("what is a dog?", "an ant", where="a.csv:9")]
    (warning,) = (w for w in split_questions(examples, SplitConfig(), 0).warnings if "different answers" in w)
    assert warning.startswith("1 questions stand there with different answers, as in  and a.csv:9")


def test_too_few_questions_say_how_many_are_needed():
    with pytest.raises(
        DataError, match=r"19 different questions are too few .* at least 20 are needed; .*--held-out FILE"
    ):
        split_questions([ask(name) for name in NAMES[:19] * 2], SplitConfig(), seed=0)


def test_a_file_of_held_out_questions_is_removed_from_training():
    train = [ask(f"What is a {name}?") for name in NAMES[:4]]
    held_out = [ask("WHAT is a bee?"), ask("What is a yak?")]
    split = split_by_file(train, held_out)
    assert texts(split.train) == {"What is a ant?", "What is a cat?", "What is a dog?"}
    assert split.held_out == tuple(held_out)
    assert split.warnings == ("1 training rows ask held-out questions, and are left out",)
    with pytest.raises(DataError, match="all 1 questions to train on are also held out"):
        split_by_file([ask("what is a bee?")], held_out)
