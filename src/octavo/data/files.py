"""Files as documents: which files, how they are compressed, what is in them."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedIOBase, BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from octavo.data.rows import COLUMNS, document_from_row
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Document

_TEXT = (".txt", ".md")
_KINDS = (*_TEXT, ".jsonl", ".parquet")
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGED = (EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException)
"""What reading a damaged file raises, beside OSError."""
_File = BinaryIO | BufferedIOBase


def find_files(paths: Sequence[str | os.PathLike[str]], kinds: Sequence[str] = _KINDS) -> list[Path]:
    """Files named by files, folders (whole, without hidden ones and those of other kinds) and glob patterns.

    In the order given, sorted by path within a folder or pattern, each file once. Raises DataError for a path or
    pattern that names nothing, and for a named file that is not of `kinds`.
    """
    found: list[Path] = []
    for path in paths:
        path = os.path.expanduser(path)
        if os.path.exists(path) or not glob.has_magic(path):
            found += _files_at(Path(path), kinds)
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise DataError(f"{path}: no file matches this pattern")
            found += [file for match in matches for file in _files_at(Path(match), kinds)]
    return list({file.resolve(): file for file in found}.values())


def read_documents(path: Path, separator: str | None) -> Iterator[Document]:
    """Documents of one file in their order. Raises DataError naming file and line (or byte offset).

    A text file is one document, or several between which `separator` stands; blank ones are left out.
    """
    if separator == "":
        raise ConfigError("separator must not be empty; leave it out to read a file as one document")
    kind, compression = kind_of(path, _KINDS)
    try:
        with open_file(path, compression) as file:
            if kind in _TEXT:
                yield from _read_text(path, file, separator)
            elif kind == ".jsonl":
                yield from _read_jsonl(path, file)
            else:
                yield from _read_parquet(path, file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder") from error
    except (OSError, *DAMAGED) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def kind_of(path: Path, kinds: Sequence[str]) -> tuple[str, str]:
    """Kind and compression by the name: ('.jsonl', '.gz'). Raises DataError for another kind than `kinds`."""
    kind, compression = _split(path)
    if kind not in kinds:
        raise DataError(f"{path}: unknown kind of file; expected {_expected(kinds)}")
    return kind, compression


def open_file(path: Path, compression: str) -> _File:
    """The bytes of a file, decompressed as they are read."""
    if compression == ".gz":
        return gzip.open(path, "rb")
    if compression == ".bz2":
        return bz2.open(path, "rb")
    if compression == ".xz":
        return lzma.open(path, "rb")
    if compression == ".zst":
        # Arrow's reader, since it tells a truncated file from a short one and reads all frames.
        return BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))  # pyright: ignore[reportArgumentType]
    return open(path, "rb")


def decode(data: bytes, path: Path, offset: int = 0) -> str:
    """UTF-8 without the byte-order mark; `offset` is where `data` begins in the file. Raises DataError."""
    mark = codecs.BOM_UTF8 if offset == 0 else b""
    try:
        return data.removeprefix(mark).decode()
    except UnicodeDecodeError as error:
        at = offset + error.start + (len(mark) if data.startswith(mark) else 0)
        raise DataError(f"{path}: not UTF-8 at byte {at}: convert the file to UTF-8") from error


def _files_at(path: Path, kinds: Sequence[str]) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        kind_of(path, kinds)
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.is_file() and _split(file)[0] in kinds)
    files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise DataError(f"{path}: the folder has no file of a known kind ({_expected(kinds)})")
    return files


def _split(path: Path) -> tuple[str, str]:
    """Kind and compression by the name: ('.jsonl', '.gz')."""
    stem, suffix = os.path.splitext(path.name.lower())
    return (os.path.splitext(stem)[1], suffix) if suffix in _COMPRESSIONS else (suffix, "")


def _expected(kinds: Sequence[str]) -> str:
    return f"{', '.join(kinds)}, each also with {', '.join(_COMPRESSIONS)}"


def _read_text(path: Path, file: _File, separator: str | None) -> Iterator[Document]:
    text = decode(file.read(), path)
    for part in [text] if separator is None else text.split(separator):
        if part.strip():
            yield Document(text=part)


def _read_jsonl(path: Path, file: _File) -> Iterator[Document]:
    offset = 0
    for number, line in enumerate(file, start=1):
        text = decode(line, path, offset)
        offset += len(line)
        if not text.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        yield from _unless_blank(document_from_row(row, where))


def _read_parquet(path: Path, file: _File) -> Iterator[Document]:
    table = pyarrow.parquet.ParquetFile(BytesIO(file.read()))
    columns = [name for name in table.schema_arrow.names if name in COLUMNS]
    number = 0
    for batch in table.iter_batches(columns=columns or None):
        for row in batch.to_pylist():
            number += 1
            yield from _unless_blank(document_from_row(row, f"{path}: row {number}"))


def _unless_blank(document: Document) -> Iterator[Document]:
    if document.text is None or document.text.strip():
        yield document
