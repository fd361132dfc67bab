import dataclasses

import pytest

from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.types import Problem
from octavo.text.messages import Message

PROBLEM = Problem(id="p", task="t", question="2 + 2?", answer="4")


def turns(config):
    return [(message.role, message.content) for message in config.messages(PROBLEM)]


def test_words_around_a_question():
    assert turns(PLAINLY) == [("user", "2 + 2?")]
    assert turns(AskingConfig(system="Be brief.", suffix=" Box it.")) == [
        ("system", "Be brief."),
        ("user", "2 + 2? Box it."),
    ]


def test_what_stands_before_the_question_is_kept_and_its_system_message_wins():
    config = AskingConfig(system="Be brief.")
    before = (Message("user", "Hello"), Message("assistant", "Hi"))
    asked = config.messages(dataclasses.replace(PROBLEM, context=before))
    assert [message.role for message in asked] == ["system", "user", "assistant", "user"]
    asked = config.messages(dataclasses.replace(PROBLEM, context=(Message("system", "Be long."),)))
    assert [message.content for message in asked] == ["Be long.", "2 + 2?"]


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
