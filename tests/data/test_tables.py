"""Tables of users: every kind and compression, the place of every row, and all wrong rows told at once."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.data.tables import WrongRows, read_rows
from octavo.errors import DataError

ROWS = [{"question": "Wie groß?", "answer": "1,5 m"}, {"question": 'Say "no",\nplease', "answer": "no"}]
SECOND_PLACE = {".jsonl": ":2", ".json": ":3", ".csv": ":3", ".tsv": ":3", ".parquet": ": row 2"}


def parquet(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def separated(rows: list[dict], delimiter: str) -> bytes:
    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    lines = [delimiter.join(map(quoted, cells)) for cells in (rows[0].keys(), *(row.values() for row in rows))]
    return ("\r\n".join(lines) + "\r\n").encode()


WRITERS: dict[str, Callable[[list[dict]], bytes]] = {
    ".jsonl": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    ".json": lambda rows: ("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n").encode(),
    ".csv": lambda rows: separated(rows, ","),
    ".tsv": lambda rows: separated(rows, "\t"),
    ".parquet": parquet,
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}  # fmt: skip


def read(path: Path, data: bytes | str):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    wrong = WrongRows()
    rows = list(read_rows(path, wrong))
    wrong.check()
    return rows


def complaint(path: Path, data: bytes | str) -> str:
    with pytest.raises(DataError) as caught:
        read(path, data)
    return str(caught.value).replace(str(path), "F")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_rows_and_their_places(tmp_path: Path, kind: str, compression: str):
    path = tmp_path / f"rows{kind}{compression}"
    rows = read(path, COMPRESSIONS[compression](WRITERS[kind](ROWS)))
    assert [row.values for row in rows] == ROWS
    assert rows[1].where == f"{path}{SECOND_PLACE[kind]}"


def test_lines_are_those_of_the_file_behind_quoted_newlines_and_blank_lines(tmp_path: Path):
    rows = read(tmp_path / "a.csv", 'question,answer\n"one\n\ntwo",1\n\n  \nthree,3\n')
    assert [(row.where.rpartition(":")[2], row.values["answer"]) for row in rows] == [("2", "1"), ("7", "3")]
    rows = read(tmp_path / "a.jsonl", '\n{"a": 1}\n\n{"a": 2}')
    assert [row.where.rpartition(":")[2] for row in rows] == ["2", "4"]


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv")])
def test_the_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str, name: str):
    rows = read(tmp_path / name, "\ufeff" + delimiter.join(["question", "answer"]) + f"\na b{delimiter}c\n")
    assert [row.values for row in rows] == [{"question": "a b", "answer": "c"}]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "q,a\nx,\n"),
        ("a.jsonl", '{"q": "x", "a": null}'),
        ("a.parquet", parquet([{"q": "x", "a": None}])),
    ],
)
def test_what_is_absent_is_left_out(tmp_path: Path, name: str, data: bytes | str):
    assert [row.values for row in read(tmp_path / name, data)] == [{"q": "x"}]


@given(st.lists(st.fixed_dictionaries({"q": st.text(min_size=1), "a": st.text(min_size=1)}), min_size=1))
def test_any_text_comes_back_from_json(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]):
    path = tmp_path_factory.mktemp("t") / "a.json"
    assert [row.values for row in read(path, json.dumps(rows))] == rows


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a"\n', "F:2: expected one JSON object a line: Expecting ':' delimiter"),
        ("a.jsonl", "[1]", "F:1: expected a JSON object, got list"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}', "F: not UTF-8 at byte 16"),
        ("a.json", '{"a": 1}', "F: expected a JSON list of objects"),
        ("a.json", '[{"a": 1},\n 5]', "F:2: expected a JSON object, got int"),
        ("a.json", '[{"a": 1},\n\n {"a" 2}]', "F:3: not JSON: Expecting ':' delimiter"),
        ("a.json", '[{"a": 1}', "F:1: not JSON: Expecting ',' or ']'"),
        ("a.json", '[{"a": 1}\n {"a": 2}]', "F:1: not JSON: Expecting ',' or ']'"),
        ("a.json", "[] {}", "F: expected nothing behind the list, got '{}'"),
        ("a.csv", "q,a\nx\n", "F:2: expected 2 fields, as the header has, got 1"),
        ("a.csv", "q,a\nx,y\nwhy, then,b\n", "F:3: expected 2 fields, as the header has, got 3"),
        ("a.csv", 'q,a\nx,y\n"never closed,b\nz,w\n', "F:3: not CSV: unexpected end of data"),
        ("a.csv", "q,a,q\n", "F:1: two columns are named 'q'"),
        ("a.csv", "q,ä\n".encode("latin-1"), "F: not UTF-8 at byte 2"),
        ("a.parquet", b"PAR1 not really", "F: cannot be read"),
        ("a.csv.gz", b"q,a\n", "F: cannot be read"),
        ("a.xlsx", b"", "F: unknown kind of file; expected .jsonl, .json, .csv, .tsv, .parquet"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, name: str, data: bytes | str, message: str):
    assert complaint(tmp_path / name, data).startswith(message)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        list(read_rows(tmp_path / "none.csv", WrongRows()))


def test_all_wrong_rows_are_told_at_once_and_the_first_twenty_in_full(tmp_path: Path):
    text = complaint(tmp_path / "a.jsonl", "\n".join(['{"a": 1}', *["7"] * 25]))
    first, *told, rest = text.split("\n  ")
    assert first == "25 rows cannot be used; mend or remove them:"
    assert told == [f"F:{line}: expected a JSON object, got int" for line in range(2, 22)]
    assert rest == "and 5 more"
