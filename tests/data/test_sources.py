"""Sources: random access, fingerprints, mixtures."""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.data.sources import FileSource, ListSource, MixtureSource
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Document, Message

text = st.text(st.characters(exclude_categories=["Cs"]))
message = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), text, st.none() | text)
document = st.builds(Document, text=text) | st.builds(
    Document, messages=st.lists(message, min_size=1, max_size=3).map(tuple)
)


def texts(*contents: str) -> list[Document]:
    return [Document(text=content) for content in contents]


@given(st.lists(document))
def test_a_list_gives_back_its_documents(documents: list[Document]):
    source = ListSource(iter(documents))
    assert [source.document(index) for index in range(len(source))] == documents


@given(st.lists(document, max_size=4), st.lists(document, max_size=4))
def test_fingerprints_are_equal_exactly_where_the_documents_are(one: list[Document], other: list[Document]):
    assert (ListSource(one).fingerprint() == ListSource(other).fingerprint()) == (one == other)


def test_fingerprints_see_order_and_borders():
    contents = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("", "a", "b")]
    assert len({ListSource(texts(*content)).fingerprint() for content in contents}) == 5


def test_files_in_order_whatever_their_kind(tmp_path: Path):
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "three"}\n{"question": "Q", "answer": "A"}'))
    (tmp_path / "a.txt").write_text("one|two")
    source = FileSource([tmp_path], separator="|")
    exchange = Document(messages=(Message("user", "Q"), Message("assistant", "A")))
    assert [source.document(index) for index in range(len(source))] == [*texts("one", "two", "three"), exchange]
    assert [file.name for file in source.files] == ["a.txt", "b.jsonl.gz"]
    assert source.fingerprint() == ListSource([*texts("one", "two", "three"), exchange]).fingerprint()


def test_an_empty_corpus_is_an_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"the corpus is empty: no text in .*a\.txt"):
        FileSource([tmp_path / "a.txt"])
    with pytest.raises(DataError, match="no path at all"):
        FileSource([])


def test_a_corpus_of_one_byte_is_a_corpus(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"x")
    source = FileSource([tmp_path / "a.txt"])
    assert (len(source), source.document(0)) == (1, Document(text="x"))


def contents(source: MixtureSource) -> str:
    return "".join(source.document(index).text or "" for index in range(len(source)))


def test_mixtures_worked_by_hand():
    letters, digits = ListSource(texts(*"abc")), ListSource(texts(*"12"))
    assert contents(MixtureSource([letters, digits], [3, 1])) == "ab1cab2c"
    assert contents(MixtureSource([letters, digits], [1, 1])) == "a1b2c1"
    assert contents(MixtureSource([letters], [0.1])) == "abc"


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9).map(lambda tenths: tenths / 10)), min_size=1, max_size=4)
)
def test_a_mixture_holds_everything_in_its_shares_evenly(parts: list[tuple[int, float]]):
    sources = [ListSource(texts(*(chr(97 + k) * (i + 1) for i in range(size)))) for k, (size, _) in enumerate(parts)]
    mixture = MixtureSource(sources, [weight for _, weight in parts])
    drawn = [mixture.document(index).text or "" for index in range(len(mixture))]
    shares = [weight / sum(weight for _, weight in parts) for _, weight in parts]
    for k, (size, _) in enumerate(parts):
        mine = [text for text in drawn if text[0] == chr(97 + k)]
        assert mine == [chr(97 + k) * (i % size + 1) for i in range(len(mine))]
        assert len(mine) >= size
        assert len(mine) == pytest.approx(shares[k] * len(drawn), abs=len(parts))
        half = Counter(text[0] for text in drawn[: len(drawn) // 2])[chr(97 + k)]
        assert half == pytest.approx(len(mine) / 2, abs=len(parts)), "interleaved, not one after the other"


def test_mixture_fingerprints_follow_their_parts():
    one, other = ListSource(texts("a")), ListSource(texts("b"))
    mixtures = [([one, other], [1, 1]), ([other, one], [1, 1]), ([one, other], [1, 2]), ([one, one], [1, 1])]
    assert len({MixtureSource(sources, weights).fingerprint() for sources, weights in mixtures}) == 4
    assert MixtureSource([one], [1]).fingerprint() == MixtureSource([ListSource(texts("a"))], [1]).fingerprint()


def test_bad_mixtures():
    source = ListSource(texts("a"))
    with pytest.raises(ConfigError, match="got 1 sources, 2 weights"):
        MixtureSource([source], [1, 1])
    with pytest.raises(ConfigError, match="weight of source 1 of the mixture must be positive, got 0"):
        MixtureSource([source, source], [1, 0])
    with pytest.raises(DataError, match="source 1 of the mixture has no documents"):
        MixtureSource([source, ListSource([])], [1, 1])
