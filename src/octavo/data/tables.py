"""Tables of users' rows: JSON lines, JSON, CSV, TSV, Parquet, plain or compressed, and all that is wrong with them.

A wrong row does not end the reading: what is wrong is collected, so that a user mends a file once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet

from octavo.data.files import DAMAGED, decode, kind_of, open_file
from octavo.errors import DataError

TABLE_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of the files that can be read."""
_MOST_TOLD = 20
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and where it stands ("file:line", of Parquet "file: row N")."""

    where: str
    values: Mapping[str, Any]


class WrongRows:
    """What is wrong with the rows of some files, told all at once."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._count = 0

    def add(self, what: object) -> None:
        """`what` names the place and what was expected there."""
        self._count += 1
        if len(self._told) < _MOST_TOLD:
            self._told.append(str(what))

    def check(self) -> None:
        """Raises DataError, one line for each of the first 20, if anything was wrong."""
        if self._count == 1:
            raise DataError(self._told[0])
        if self._count:
            more = self._count - len(self._told)
            rest = [f"and {more} more"] if more else []
            raise DataError(
                "\n  ".join([f"{self._count} rows cannot be used; mend or remove them:", *self._told, *rest])
            )


def read_rows(path: Path, wrong: WrongRows) -> Iterator[Row]:
    """The rows of one file in their order, without blank lines; what cannot be read as a row goes to `wrong`.

    Null, and in CSV and TSV the empty string, are left out of `values`. Raises DataError where the file as a whole
    cannot be read: missing, damaged, not UTF-8, of an unknown kind, a header that is no header.
    """
    kind, compression = kind_of(path, TABLE_KINDS)
    try:
        with open_file(path, compression) as file:
            data = file.read()
        match kind:
            case ".jsonl":
                rows = _json_lines(path, data, wrong)
            case ".json":
                rows = _json_list(path, decode(data, path), wrong)
            case ".parquet":
                rows = _parquet(path, data)
            case _:
                rows = _separated(path, decode(data, path), "\t" if kind == ".tsv" else None, wrong)
        for row in rows:
            yield Row(row.where, {name: value for name, value in row.values.items() if value is not None})
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder") from error
    except (OSError, *DAMAGED) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _json_lines(path: Path, data: bytes, wrong: WrongRows) -> Iterator[Row]:
    offset = 0
    for number, line in enumerate(BytesIO(data), start=1):
        where = f"{path}:{number}"
        try:
            text = decode(line, path, offset)
            if text.strip():
                yield _object(json.loads(text), where)
        except DataError as error:
            wrong.add(error)
        except (ValueError, RecursionError) as error:
            wrong.add(f"{where}: expected one JSON object a line: {error}")
        offset += len(line)


def _json_list(path: Path, text: str, wrong: WrongRows) -> Iterator[Row]:
    """Items of a list one by one, so that each has its line."""
    decoder = json.JSONDecoder()
    place, line, counted = _after_blanks(text, 0), 1, 0
    if text[place : place + 1] != "[":
        raise DataError(
            f"{path}: expected a JSON list of objects ([{{...}}, ...]); for one object a line, name it .jsonl"
        )
    place = _after_blanks(text, place + 1)
    if closed := text[place : place + 1] == "]":
        place = _after_blanks(text, place + 1)
    while not closed:
        line, counted = line + text.count("\n", counted, place), place
        where = f"{path}:{line}"
        try:
            value, place = decoder.raw_decode(text, place)
            place = _after_blanks(text, place)
            if text[place : place + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']' after an item", text, place)
        except (ValueError, RecursionError) as error:
            # Where one item is broken nobody knows where the next begins.
            wrong.add(f"{where}: not JSON: {error}")
            return
        closed = text[place] == "]"
        place = _after_blanks(text, place + 1)
        try:
            yield _object(value, where)
        except DataError as error:
            wrong.add(error)
    if place < len(text):
        wrong.add(f"{path}: expected nothing behind the list, got {text[place : place + 20]!r}")


def _after_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\n", "\r"):
        place += 1
    return place


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return Row(where, value)


def _separated(path: Path, text: str, delimiter: str | None, wrong: WrongRows) -> Iterator[Row]:
    delimiter = delimiter or _delimiter_of(text)
    # Strict: a quote that is never closed would else swallow the rest of the file as one text.
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            wrong.add(f'{where}: not CSV: {error}; a text with quotes inside is written "so ""quoted"""')
            return
        if fields is None:
            return
        if not any(field.strip() for field in fields):
            continue
        if header is None:
            header = _checked_header(fields, where)
        elif len(fields) != len(header):
            wrong.add(
                f"{where}: expected {len(header)} fields, as the header has, got {len(fields)}; "
                f"a text that holds {delimiter!r} must stand in quotes"
            )
        else:
            yield Row(where, {name: field or None for name, field in zip(header, fields, strict=True)})


def _checked_header(fields: list[str], where: str) -> list[str]:
    header = [field.strip() for field in fields]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: two columns are named {twice!r}; expected a header with a name for each column")
    return header


def _delimiter_of(text: str) -> str:
    """That which cuts the header into most columns: in half of the world spreadsheets write semicolons."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(_DELIMITERS, key=header.count)


def _parquet(path: Path, data: bytes) -> Iterator[Row]:
    number = 0
    for batch in pyarrow.parquet.ParquetFile(BytesIO(data)).iter_batches():
        for values in batch.to_pylist():
            number += 1
            yield Row(f"{path}: row {number}", values)
