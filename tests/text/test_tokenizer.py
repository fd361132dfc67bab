"""Byte-level BPE: round trips, exact vocabulary, determinism, and `transformers` as an oracle."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from octavo.errors import CheckpointError, ConfigError, DataError
from octavo.text.messages import Message
from octavo.text.tokenizer import Tokenizer
from octavo.text.tokens import CONTROL_TOKENS, TAG_TOKENS

TEXTS = [f"The sum of {a} and {b} is {a + b}, not {a - b}; naïve café, 数学." for a in range(40) for b in range(20)]
SMALLEST = 256 + 9

TOKENIZER = Tokenizer.train(TEXTS, vocab_size=290)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
special_text = st.lists(st.sampled_from([*CONTROL_TOKENS, *TAG_TOKENS, "<|", "|>", "a 12", " é", "<"])).map("".join)


def test_vocab_size_is_the_exact_total():
    assert TOKENIZER.vocab_size == 290
    ids = [TOKENIZER.token_id(token) for token in (*CONTROL_TOKENS, *TAG_TOKENS)]
    assert ids == list(range(9)), "special tokens come first, padding is 0"
    assert TOKENIZER.end_ids == {0, 4}


@given(unicode_text | special_text)
def test_every_string_round_trips_as_text(text: str):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(5 <= id < 290 for id in ids), "no control token comes from text"


def test_tags_are_single_visible_tokens():
    ids = TOKENIZER.encode("<think>1</think><answer>2</answer>")
    one, two = TOKENIZER.encode("1")[0], TOKENIZER.encode("2")[0]
    assert ids == [5, one, 6, 7, two, 8]
    assert TOKENIZER.decode([3, *ids, 4]) == "<think>1</think><answer>2</answer>"


def test_digits_stand_alone():
    assert len(TOKENIZER.encode("2024")) == 4


def test_bytes_that_are_not_utf8_are_shown_as_replacement():
    first_byte_only = TOKENIZER.encode("é")[:1] if len(TOKENIZER.encode("é")) > 1 else TOKENIZER.encode("🙂")[:1]
    assert TOKENIZER.decode(first_byte_only) == "\ufffd"


def test_batch_equals_one_by_one():
    texts = ["", "a", "<think>", *TEXTS[:5]]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]
    assert TOKENIZER.encode("") == []


def test_training_is_deterministic(tmp_path: Path):
    for name in ("first", "second"):
        Tokenizer.train(iter(TEXTS), vocab_size=280).save(tmp_path / name)
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second


def test_special_tokens_in_the_corpus_are_not_learned():
    tagged = Tokenizer.train(["<think>ab</think><answer>ab</answer><|end|>"] * 50, vocab_size=SMALLEST + 10)
    assert tagged.vocab_size == SMALLEST + 1, "the one pair there is to merge is 'ab'"
    assert len(tagged.encode("<|end|>")) == 7


def test_too_little_text_gives_a_smaller_vocabulary():
    tiny = Tokenizer.train(["a"], vocab_size=5000)
    assert tiny.vocab_size == SMALLEST
    assert tiny.decode(tiny.encode("any text: 数学")) == "any text: 数学"


@pytest.mark.parametrize("texts", [[], ["", ""], ["<think></think>"]])
def test_an_empty_corpus_is_an_error(texts: list[str]):
    with pytest.raises(DataError, match="corpus is empty"):
        Tokenizer.train(texts, vocab_size=300)


def test_a_vocabulary_without_room_for_bytes_is_an_error():
    assert Tokenizer.train(["a"], vocab_size=SMALLEST).vocab_size == SMALLEST
    with pytest.raises(ConfigError, match=r"vocab_size 264 is too small.*at least 265"):
        Tokenizer.train(["a"], vocab_size=SMALLEST - 1)


def test_a_lone_surrogate_is_an_error():
    with pytest.raises(DataError, match="lone surrogate"):
        TOKENIZER.encode("a\ud800")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save(path)
    return path


def test_load_gives_back_what_was_saved(folder: Path, tmp_path: Path):
    loaded = Tokenizer.load(folder)
    assert (loaded.vocab_size, loaded.end_ids) == (290, {0, 4})
    assert loaded.encode_batch(TEXTS[:20]) == TOKENIZER.encode_batch(TEXTS[:20])
    assert loaded.encode("<|user|>") == TOKENIZER.encode("<|user|>")
    loaded.save(tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_transformers_opens_the_folder(folder: Path):
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (theirs.eos_token, theirs.pad_token) == ("<|end|>", "<|endoftext|>")
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (4, 0, 290)
    for text in [*TEXTS[:20], " two  spaces\n\n\ttab ", "<think>1 + 1</think><answer>2</answer>", "🙂 数学 123"]:
        ids = TOKENIZER.encode(text)
        assert theirs.encode(text) == ids
        assert theirs.decode(ids) == text
        assert theirs.decode([3, *ids, 4], skip_special_tokens=True) == text


CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "1 + 1?\n"),
    Message("assistant", "<answer>2</answer>", reasoning="one and one"),
    Message("user", "And 2 + 2?"),
    Message("assistant", "<think>two and two</think><answer>4</answer>"),
]


@pytest.mark.parametrize("turns", [slice(1), slice(2), slice(3), slice(4), slice(5), slice(1, 2), slice(1, 3)])
@pytest.mark.parametrize("prompt", [True, False])
def test_transformers_renders_the_same_conversation(folder: Path, turns: slice, prompt: bool):
    theirs = AutoTokenizer.from_pretrained(folder)
    messages = CONVERSATION[turns]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    for values, message in zip(plain, messages, strict=True):
        if message.reasoning is not None:
            values["reasoning_content"] = message.reasoning
    rendered = theirs.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt)
    assert TOKENIZER.template.render(messages, add_generation_prompt=prompt) == rendered


def test_missing_and_damaged_files_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        Tokenizer.load(tmp_path)
    TOKENIZER.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:1000])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_unknown_token_is_an_error():
    with pytest.raises(CheckpointError, match="no token '<mask>'"):
        TOKENIZER.token_id("<mask>")
