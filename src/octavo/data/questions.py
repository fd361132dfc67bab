"""Questions with answers, as their owners keep them: read whole, and checked row by row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octavo.data.examples import Example
from octavo.data.files import find_files
from octavo.data.shapes import Shape, detect_shape
from octavo.data.tables import TABLE_KINDS, WrongRows, read_rows
from octavo.errors import DataError


@dataclass(frozen=True)
class Questions:
    """The examples of some files, in their order, and how they were read."""

    examples: tuple[Example, ...]
    shape: Shape
    files: tuple[Path, ...]

    def describe(self) -> str:
        """One line: how many, of what shape, and what they are good for."""
        shown = ", ".join(map(str, self.files[:3])) + (f" and {len(self.files) - 3} more" if self.files[3:] else "")
        answered = sum(example.answer is not None for example in self.examples)
        worked = sum(example.reply is not None for example in self.examples)
        return (
            f"{shown}: {len(self.examples)} rows of {self.shape}; "
            f"{answered} with an answer to check, {worked} with a worked answer to learn from"
        )


def read_questions(paths: Sequence[str | os.PathLike[str]], columns: Mapping[str, str] | None = None) -> Questions:
    """Read files, folders and glob patterns of .jsonl, .json, .csv, .tsv and .parquet, plain or compressed.

    All rows of all files are of one shape (see `shapes`), found by the names of the columns. `columns` says which
    column plays which role where names do not: {"question": "frage", "answer": "antwort"}.

    Raises DataError with the place of every wrong row (of the first 20) and what was expected there; also for files
    without any question, and for columns that are of no shape or of several.
    """
    files = find_files(paths, TABLE_KINDS)
    wrong = WrongRows()
    rows = [row for file in files for row in read_rows(file, wrong)]
    first_place: dict[str, str] = {}
    for row in rows:
        for column in row.values:
            first_place.setdefault(column, row.where)
    if not rows:
        wrong.check()
        raise DataError(f"{', '.join(map(str, paths)) or 'no path at all'}: holds no question")
    shape = detect_shape(first_place, columns or {})
    examples = []
    for row in rows:
        try:
            examples.append(shape.read(row))
        except DataError as error:
            wrong.add(error)
    wrong.check()
    return Questions(tuple(examples), shape, tuple(files))
