from collections import Counter

import pytest

from octavo.errors import ConfigError
from octavo.tasks.asking import AskingConfig
from octavo.tasks.build import build_mixture
from octavo.tasks.source import SolutionSource, SolutionSourceConfig
from octavo.text.chat_template import ChatTemplate
from octavo.text.messages import Message
from octavo.text.template import parse_reply

BASE = {
    "tasks": [
        {"kind": "reasoning_gym", "name": "products", "params": {"max_digits": 2}},
        {"kind": "reasoning_gym", "name": "gcd"},
    ],
    "documents": 300,
    "styles": {"direct": 1, "steps": 2, "slip": 1},
    "languages": {"en": 1, "pt": 1},
    "conversation_share": 0.5,
}


def source(**changes):
    return SolutionSource(SolutionSourceConfig.parse({**BASE, **changes}))


def format_turn(assistant):
    """The turn as a model would write it."""
    rendered = ChatTemplate.default().render([Message("user", "q"), assistant], add_generation_prompt=False)
    return rendered.split("<|assistant|>")[1].removesuffix("<|end|>")


def test_a_document_is_a_function_of_its_index():
    first, second = source(), source()
    assert len(first) == 300
    assert [first.document(i) for i in (299, 0, 7)] == [second.document(i) for i in (299, 0, 7)]
    with pytest.raises(IndexError):
        first.document(300)


def test_documents_differ_by_index_and_seed():
    texts = [str(source(seed=seed).document(i)) for seed in (0, 1) for i in range(100)]
    assert len(set(texts)) > 190


@pytest.mark.parametrize("reading", ["tags", "boxed", "last_number", "reply"])
@pytest.mark.parametrize("style", ["steps", "direct"])
def test_conversations_are_written_as_their_answers_are_read(reading, style):
    asking = AskingConfig(reading=reading)
    config = SolutionSourceConfig.parse(
        BASE | {"conversation_share": 1.0, "styles": {style: 1}, "asking": {"reading": reading}}
    )
    written, problems = SolutionSource(config), build_mixture(config.tasks)
    for index in range(40):
        asked, reply = written.document(index).messages
        assert asked.role == "user"
        assert asking.answer(reply.content) == problems.problem("train", config.seed, index).answer
        assert (reply.reasoning is None) == (reading in ("boxed", "last_number"))
        assert ("<answer>" in reply.content) == (reading == "tags")


def test_conversations_hold_reasoning_and_answer_apart():
    document = source(conversation_share=1.0, styles={"steps": 1}).document(0)
    user, assistant = document.messages
    assert user.role == "user"
    assert user.content.startswith("Solve the following multiplication")
    assert isinstance(assistant, Message)
    assert assistant.reasoning
    reply = parse_reply(format_turn(assistant))
    assert reply.well_formed
    assert reply.reasoning == assistant.reasoning
    assert reply.answer
    assert assistant.reasoning.rstrip(".").endswith(reply.answer)
    assert document.text is None


def test_shares_are_about_as_asked():
    documents = [source().document(i) for i in range(300)]
    assert sum(document.text is None for document in documents) == pytest.approx(150, abs=35)
    layouts = Counter((document.text or "conversation").split(":")[0].split("\n")[0][:5] for document in documents)
    assert layouts["Quest"] > 20
    assert layouts["Q"] > 20


def test_reads_train_problems_only_and_correct_styles_are_right():
    mixture = build_mixture(SolutionSourceConfig.parse(BASE).tasks)
    right = source(styles={"steps": 1, "check": 1, "mend": 1, "direct": 1}, conversation_share=1.0)
    for index in range(200):
        problem = mixture.problem("train", 0, index)
        user, assistant = right.document(index).messages
        assert user.content == problem.question
        assert mixture.grade(problem, parse_reply(format_turn(assistant)).answer).correct


def test_fingerprint_follows_the_config():
    assert source().fingerprint() == source().fingerprint()
    assert source().fingerprint() != source(seed=1).fingerprint()


def test_bad_configs():
    with pytest.raises(ConfigError, match="no worked solutions for task letter_counting"):
        source(tasks=[{"kind": "reasoning_gym", "name": "letter_counting"}])
    with pytest.raises(ConfigError, match="styles: got weights"):
        source(styles={"steps": 0})
    with pytest.raises(ConfigError, match="styles"):
        source(styles={"step": 1})
