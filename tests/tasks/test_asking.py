import pytest

from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.types import Problem

PROBLEM = Problem(id="p", task="t", question="2 + 2?", answer="4")


def turns(config):
    return [(message.role, message.content) for message in config.messages(PROBLEM)]


def test_words_around_a_question():
    assert turns(PLAINLY) == [("user", "2 + 2?")]
    assert turns(AskingConfig(system="Be brief.", suffix=" Box it.")) == [
        ("system", "Be brief."),
        ("user", "2 + 2? Box it."),
    ]


@pytest.mark.parametrize(
    ("reading", "text", "answer"),
    [
        ("tags", "<think>2+2=4</think><answer>4</answer>", "4"),
        ("boxed", r"So \boxed{3}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\boxed{7}}", "7"),
        ("boxed", r"unclosed \boxed{1", None),
        ("boxed", "4", None),
        ("last_number", "<think>1 then 9</think>It is 3, that is 1,204.50 in all.", "1,204.50"),
        ("last_number", "minus: -7.", "-7"),
        ("last_number", "none", None),
    ],
)
def test_where_the_answer_stands(reading, text, answer):
    assert AskingConfig(reading=reading).answer(text) == answer
