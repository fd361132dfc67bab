"""New tokens for a language that is cut into bytes: what they are, and what they leave as it was."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_families import FAMILIES, sentencepiece_json, write_folder
from transformers import AutoTokenizer

from octavo.errors import ConfigError, DataError
from octavo.text import extension
from octavo.text.extension import extended, learn_extension
from octavo.text.fertility import fertility
from octavo.text.gguf_vocabulary import from_gguf, to_gguf
from octavo.text.tokenizer import Tokenizer

ENGLISH = "The reader reads what the writer wrote, and the writer reads what the readers wrote. "
GEORGIAN = "გამარჯობა, მკითხველო! მკითხველი კითხულობს, მწერალი წერს. "
SWAHILI = "Msomaji anasoma kitabu; wasomaji wanasoma vitabu. Anasoma leo, walisoma jana. "
CORPUS = [GEORGIAN * 6]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([ENGLISH * 4], 300)


@pytest.fixture(scope="module")
def larger(tokenizer) -> Tokenizer:
    return extended(tokenizer, learn_extension(tokenizer, CORPUS, [ENGLISH], 40))


def test_the_commonest_pair_becomes_the_first_token():
    """Of six times `ზზზზ` and five times `ზა`, by hand: the letter is three bytes, of which two make the first pair."""
    tokenizer = Tokenizer.train(["x"], 265)
    learned = learn_extension(tokenizer, ["ზზზზ " * 6 + "ზა " * 5], [], 3)
    first, second, third = (tokenizer.decode(ids) for ids in learned.pieces.values())
    one, two, three = tokenizer.encode("ზ")
    assert list(learned.pieces.values()) == [(one, two), (one, two, three), (one, two, three) * 2]
    assert (second, third) == ("ზ", "ზზ")
    assert "\ufffd" in first


def test_the_language_is_cut_less_finely_and_comes_back(tokenizer, larger):
    before, after = fertility(tokenizer, CORPUS), fertility(larger, CORPUS)
    assert (before.words, before.bytes) == (after.words, after.bytes) == (36, len(CORPUS[0].encode()))
    assert before.tokens_per_word > 20
    assert after.tokens_per_word < 4
    assert larger.decode(larger.encode(GEORGIAN)) == GEORGIAN


def test_ids_go_on_behind_the_old_ones(tokenizer, larger):
    learned = learn_extension(tokenizer, CORPUS, [ENGLISH], 40)
    assert larger.vocab_size == tokenizer.vocab_size + 40
    for place, (token, pieces) in enumerate(learned.pieces.items()):
        assert larger.token_id(token) == tokenizer.vocab_size + place
        assert all(id_ < tokenizer.vocab_size for id_ in pieces)
        assert larger.decode([tokenizer.vocab_size + place]) == tokenizer.decode(pieces)
    assert larger.special == tokenizer.special
    for token in ("<|endoftext|>", "<|user|>", "<think>"):
        assert larger.token_id(token) == tokenizer.token_id(token)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cs"])))
def test_text_of_another_script_is_cut_as_before(tokenizer, larger, text):
    assert larger.encode(text) == tokenizer.encode(text)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([*GEORGIAN, *ENGLISH])).map("".join))
def test_new_tokens_are_made_of_what_the_old_ones_were(tokenizer, larger, text):
    """Taking each new token apart again gives the old ids: appended merges never come before old ones."""
    learned = learn_extension(tokenizer, CORPUS, [ENGLISH], 40)
    pieces = {tokenizer.vocab_size + place: ids for place, ids in enumerate(learned.pieces.values())}
    apart = [old for id_ in larger.encode(text) for old in pieces.get(id_, (id_,))]
    assert apart == tokenizer.encode(text)


def test_text_to_keep_is_cut_as_before_even_in_the_same_script(tokenizer):
    """Swahili shares letters, and pairs of them, with English: kept words stay whole, others change."""
    kept = "Some masons kit a bat, and also sew a soma leaf. "
    free, bound = (extended(tokenizer, learn_extension(tokenizer, [SWAHILI * 6], keep, 20)) for keep in ([], [kept]))
    assert free.encode(kept) != tokenizer.encode(kept) == bound.encode(kept)
    assert len(bound.encode(SWAHILI)) < 0.8 * len(tokenizer.encode(SWAHILI))


def test_english_words_in_text_of_another_script_are_not_learned(tokenizer):
    mixed = (GEORGIAN + "filename ") * 6
    learned = learn_extension(tokenizer, [mixed], [], 40)
    assert extended(tokenizer, learned).encode(" filename") == tokenizer.encode(" filename")


def test_the_same_text_gives_the_same_tokens(tokenizer):
    first, second = (learn_extension(tokenizer, CORPUS, [ENGLISH], 40) for _ in range(2))
    assert (first.merges, dict(first.pieces)) == (second.merges, dict(second.pieces))


def test_a_vocabulary_can_be_extended_twice(tokenizer, larger):
    twice = extended(larger, learn_extension(larger, ["Մարդը կարդում է գիրքը։ " * 6], [ENGLISH, *CORPUS], 20))
    assert twice.vocab_size == larger.vocab_size + 20
    assert twice.encode(GEORGIAN + ENGLISH) == larger.encode(GEORGIAN + ENGLISH)


def test_too_little_text_is_said_with_what_there_is(tokenizer):
    with pytest.raises(DataError, match=r"too little text for 5,000 new tokens: .* after \d+; add text, or set"):
        learn_extension(tokenizer, CORPUS, [], 5000)
    with pytest.raises(DataError, match="after 0;"):
        learn_extension(tokenizer, ["ა ბ გ"], [], 5)
    assert extension.FEWEST_USES == 5


@pytest.mark.parametrize("scheme", ["normalizer", "first"])
def test_sentencepiece_is_refused(tmp_path, scheme):
    (tmp_path / "tokenizer.json").write_text(sentencepiece_json(scheme), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(ConfigError, match="this model's tokenizer is SentencePiece, and only byte-level BPE"):
        learn_extension(Tokenizer.load(tmp_path), CORPUS, [], 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_open_families_are_extended_and_other_tools_read_them_alike(tmp_path: Path, name: str):
    """Saved and opened again: by us, by `transformers`, and as GGUF metadata."""
    old = Tokenizer.load(write_folder(tmp_path / "old", name))
    larger = extended(old, learn_extension(old, CORPUS, [ENGLISH], 40))
    larger.save(tmp_path / "new")
    again = Tokenizer.load(tmp_path / "new")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "new")
    gguf = from_gguf(to_gguf(larger, "x"), "x")
    text = f"{GEORGIAN}{ENGLISH} 17 + 26, naïve\n\n  {GEORGIAN}"
    ids = larger.encode(text)
    assert max(ids) >= old.vocab_size
    assert len(ids) < len(old.encode(text))
    assert again.encode(text) == gguf.encode(text) == theirs.encode(text, add_special_tokens=False) == ids
    assert theirs.decode(ids) == larger.decode(ids) == text
    assert again.special == larger.special == old.special
    assert len(theirs) == larger.vocab_size
    for token in (*FAMILIES[name].special, *FAMILIES[name].plain):
        assert theirs.convert_tokens_to_ids(token) == larger.token_id(token) == old.token_id(token)
