"""Which documents are held out."""

import pytest

from octavo.data.parts import HELD_OUT_SHARE, is_in
from octavo.data.sources import FileSource
from octavo.errors import DataError
from octavo.text.messages import Document, Message

DOCUMENTS = [Document(text=f"document {number}") for number in range(2000)]


def test_each_document_is_in_one_part_and_a_tenth_is_held_out():
    held_out = [document for document in DOCUMENTS if is_in("held_out", document)]
    assert all(is_in("train", document) != is_in("held_out", document) for document in DOCUMENTS)
    assert all(is_in("all", document) for document in DOCUMENTS)
    assert len(held_out) == pytest.approx(HELD_OUT_SHARE * 2000, abs=50)


def test_copies_that_differ_in_white_space_are_on_one_side():
    for document in DOCUMENTS[:50]:
        assert is_in("train", document) == is_in("train", Document(text=f"\n {document.text}\t"))


def test_conversations_are_parted_too():
    talks = [Document(messages=(Message("user", f"{n}?"), Message("assistant", "yes"))) for n in range(200)]
    assert 5 < sum(is_in("held_out", talk) for talk in talks) < 40


def test_files_are_read_in_parts(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(document.text or "" for document in DOCUMENTS[:100]))
    whole, train, held_out = (FileSource([tmp_path], "\n\n", part) for part in ("all", "train", "held_out"))
    assert len(train) + len(held_out) == len(whole) == 100
    assert len({source.fingerprint() for source in (whole, train, held_out)}) == 3
    other = "held_out" if is_in("train", Document(text=(tmp_path / "a.txt").read_text())) else "train"
    with pytest.raises(DataError, match=rf"no document of .* belongs to the part {other} .* or a separator"):
        FileSource([tmp_path], None, other)
