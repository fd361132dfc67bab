"""Files as documents: kinds, compressions, order, and what is wrong with a file."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from octavo.data.files import find_files, read_documents
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Document, Message


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd,
}  # fmt: skip
ROWS = [{"text": "one"}, {"text": "zwei ü"}]
TEXTS = [Document(text="one"), Document(text="zwei ü")]
EXCHANGE = Document(messages=(Message("user", "Q"), Message("assistant", "A", "R")))


def parquet(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def read(folder: Path, name: str, data: bytes, separator: str | None = None) -> list[Document]:
    path = folder / name
    path.write_bytes(data)
    return list(read_documents(path, separator))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize(
    ("name", "data", "documents"),
    [
        ("a.txt", "one\r\nü".encode(), [Document(text="one\r\nü")]),
        ("A.MD", b"# one", [Document(text="# one")]),
        ("a.jsonl", "\n".join(json.dumps(row) for row in ROWS).encode(), TEXTS),
        ("a.parquet", parquet(ROWS), TEXTS),
    ],
)
def test_kinds_and_compressions(tmp_path: Path, suffix: str, name: str, data: bytes, documents: list[Document]):
    assert read(tmp_path, name + suffix, COMPRESSIONS[suffix](data)) == documents


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_streams_one_after_another_are_all_read(tmp_path: Path, suffix: str):
    compress = COMPRESSIONS[suffix]
    assert read(tmp_path, "a.txt" + suffix, compress(b"one ") + compress(b"two")) == [Document(text="one two")]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not compressed at all"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]):
    data = COMPRESSIONS[suffix](bytes(range(32, 127)) * 50)
    with pytest.raises(DataError, match=rf"a\.txt\{suffix}: cannot be read"):
        read(tmp_path, "a.txt" + suffix, damage(data))


def test_damaged_parquet_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        read(tmp_path, "a.parquet", parquet(ROWS)[:-4])


def test_parquet_with_messages_and_other_columns(tmp_path: Path):
    question = {"role": "user", "content": "Q", "reasoning": None}
    answer = {"role": "assistant", "content": "A", "reasoning": "R"}
    rows = [{"messages": [question, answer], "text": None, "size": 3}]
    assert read(tmp_path, "a.parquet", parquet(rows)) == [EXCHANGE]


def test_a_bad_row_of_parquet_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"a\.parquet: row 2: expected text, or messages"):
        read(tmp_path, "a.parquet", parquet([{"text": "one", "prompt": None}, {"text": None, "prompt": "P"}]))
    with pytest.raises(DataError, match=r"a\.parquet: row 1: expected text, or messages"):
        read(tmp_path, "a.parquet", parquet([{"body": "one"}]))


def test_separator_splits_text_files_and_blank_parts_are_left_out(tmp_path: Path):
    data = b"one\n---\n\n---\n two\n---\n"
    assert read(tmp_path, "a.txt", data, separator="---\n") == [Document(text="one\n"), Document(text=" two\n")]
    assert read(tmp_path, "a.txt", data) == [Document(text=data.decode())]
    assert read(tmp_path, "blank.txt", b" \n") == []
    with pytest.raises(ConfigError, match="separator must not be empty"):
        read(tmp_path, "a.txt", data, separator="")


def test_blank_lines_and_rows_and_the_byte_order_mark_are_left_out(tmp_path: Path):
    assert read(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": "one"}\n\n{"text": " "}\r\n') == [Document(text="one")]
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbfone") == [Document(text="one")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"abc\xff", r"a\.txt: not UTF-8 at byte 3"),
        ("a.txt", b"\xef\xbb\xbfabc\xff", r"a\.txt: not UTF-8 at byte 6"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"a\.jsonl: not UTF-8 at byte 24"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a\.jsonl:3: not JSON: Expecting value"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: expected an object, got list"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', r"a\.jsonl:2: expected text, or messages, .*, got body"),
    ],
)
def test_bad_content_is_named_with_its_place(tmp_path: Path, name: str, data: bytes, message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, data)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.jsonl", "sub/c.md.gz", "sub/.hidden.txt", ".git/d.txt", "picture.png", "LICENSE"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(tree: Path, *paths: str) -> list[str]:
    return [file.relative_to(tree).as_posix() for file in find_files([tree / path for path in paths])]


def test_folders_and_patterns_are_read_in_a_fixed_order(tree: Path):
    assert names(tree, ".") == ["a.jsonl", "b.txt", "sub/c.md.gz"]
    assert names(tree, "b.txt", ".") == ["b.txt", "a.jsonl", "sub/c.md.gz"], "each file once"
    assert names(tree, "*.txt", "s*") == ["b.txt", "sub/c.md.gz"]
    assert names(tree, "**/*.gz") == ["sub/c.md.gz"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree: Path):
    (tree / "a[1].txt").write_text("x")
    assert names(tree, "a[1].txt") == ["a[1].txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.txt", r"missing\.txt: no such file or folder"),
        ("*.csv", r"\*\.csv: no file matches"),
        ("LICENSE", r"LICENSE: unknown kind of file; expected \.txt, \.md, \.jsonl, \.parquet, each also with \.gz"),
        ("picture.png", "unknown kind"),
        (".git", None),
    ],
)
def test_paths_that_name_nothing(tree: Path, path: str, message: str | None):
    if message is None:
        (tree / path / "d.txt").unlink()
        message = "the folder has no file of a known kind"
    with pytest.raises(DataError, match=message):
        find_files([tree / path])
