import pytest

from octavo.data.examples import Example
from octavo.data.screening import check_answers_differ, drop_too_long
from octavo.errors import DataError
from octavo.text.messages import Message
from octavo.text.tokenizer import Tokenizer


def ask(question: str, answer: str | None = None, where: str = "") -> Example:
    return Example((Message("user", question),), answer, where=where)


def test_equal_answers_are_refused():
    with pytest.raises(DataError, match="all 2 answers are 'yes now'"):
        check_answers_differ([ask("a", "Yes  now"), ask("b", "yes now")])
    check_answers_differ([ask("a", "yes"), ask("b", "no")])
    check_answers_differ([ask("a", "yes"), ask("b")])
    check_answers_differ([ask("a"), ask("b")])


def test_questions_longer_than_the_context_are_dropped_and_told():
    tokenizer = Tokenizer.train(["no merges"], 265)  # one token a byte, and <|user|> and <|assistant|> around
    examples = [ask("12345"), ask("123456", where="a.csv:3"), ask("1")]
    assert drop_too_long(examples, tokenizer, 9) == (examples, [])
    kept, warnings = drop_too_long(examples, tokenizer, 8)
    assert kept == [examples[0], examples[2]]
    assert warnings == [
        "1 of 3 questions are longer than the context of 8 tokens (the longest, a.csv:3, has 8), and are left out"
    ]
    with pytest.raises(DataError, match="all 3 questions are longer than the context of 3 tokens"):
        drop_too_long(examples, tokenizer, 3)
