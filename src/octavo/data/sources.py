"""Sources: documents by number, in a fixed order. Whatever has these three methods can be trained on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np

from octavo.data.files import find_files, read_documents
from octavo.data.parts import HELD_OUT_SHARE, Part, is_in
from octavo.errors import ConfigError, DataError
from octavo.text.messages import Document, Message


class Source(Protocol):
    """A corpus: the same number always gives the same document."""

    def __len__(self) -> int: ...

    def document(self, index: int) -> Document:
        """The document of that number, 0 <= index < len."""
        ...

    def fingerprint(self) -> str:
        """A digest of the content and its order: the same fingerprint, the same documents."""
        ...


class ListSource:
    """Documents held in memory, as bytes in one buffer: about as large as the text itself."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._buffer = bytearray()
        self._ends = array("Q", [0])
        for document in documents:
            self._buffer += _to_bytes(document)
            self._ends.append(len(self._buffer))
        digest = hashlib.sha256(self._ends.tobytes())
        digest.update(self._buffer)
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def document(self, index: int) -> Document:
        return _from_bytes(bytes(self._buffer[self._ends[index] : self._ends[index + 1]]))

    def fingerprint(self) -> str:
        return self._fingerprint


class FileSource:
    """Documents of files, folders and glob patterns: .txt .md .jsonl .parquet, plain or .gz .bz2 .xz .zst.

    `separator` splits text files into documents; without it a file is one. `part` chooses among them. Raises DataError
    naming the file, and the line or the byte, of whatever cannot be read; also for a corpus without any text.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], separator: str | None = None, part: Part = "all"
    ) -> None:
        self.files = find_files(paths)
        """What was read, in order."""
        documents = (document for file in self.files for document in read_documents(file, separator))
        self._documents = ListSource(document for document in documents if is_in(part, document))
        if len(self._documents) == 0:
            where = ", ".join(map(str, paths)) or "no path at all"
            if part == "all":
                raise DataError(f"the corpus is empty: no text in {where}")
            raise DataError(
                f"no document of {where} belongs to the part {part} (about {HELD_OUT_SHARE:.0%} are held out): give "
                "more documents, or a separator that splits the files into more"
            )

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, index: int) -> Document:
        return self._documents.document(index)

    def fingerprint(self) -> str:
        return self._documents.fingerprint()


class MixtureSource:
    """Several sources interleaved evenly; `weights` are their shares of the documents.

    As long as it takes to hold every document of every source at least once: sources that are smaller than their share
    begin again.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        if not sources or len(sources) != len(weights):
            raise ConfigError(
                f"a mixture needs one weight a source, got {len(sources)} sources, {len(weights)} weights"
            )
        for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
            if not (weight > 0 and math.isfinite(weight)):
                raise ConfigError(f"the weight of source {number} of the mixture must be positive, got {weight}")
            if len(source) == 0:
                raise DataError(f"source {number} of the mixture has no documents")
        self._sources = tuple(sources)
        self._weights = tuple(weights)
        passes = max(len(source) / weight for source, weight in zip(sources, weights, strict=True))
        counts = [max(len(source), round(passes * weight)) for source, weight in zip(sources, weights, strict=True)]
        # The j-th of n documents of a source stands at (j + 1/2) / n of the whole.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        order = np.argsort(places, kind="stable")
        starts = np.cumsum([0, *counts[:-1]])
        self._which = np.searchsorted(starts, order, side="right") - 1
        self._index = order - starts[self._which]

    def __len__(self) -> int:
        return len(self._which)

    def document(self, index: int) -> Document:
        source = self._sources[self._which[index]]
        return source.document(int(self._index[index]) % len(source))

    def fingerprint(self) -> str:
        parts = [[source.fingerprint(), weight] for source, weight in zip(self._sources, self._weights, strict=True)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _to_bytes(document: Document) -> bytes:
    """A kind, t or m, and then the text or the messages as JSON."""
    if document.text is not None:
        return b"t" + document.text.encode()
    return b"m" + json.dumps([asdict(message) for message in document.messages], ensure_ascii=False).encode()


def _from_bytes(data: bytes) -> Document:
    if data[:1] == b"t":
        return Document(text=data[1:].decode())
    messages = json.loads(data[1:])
    return Document(messages=tuple(Message(**{**each, "tool_calls": tuple(each["tool_calls"])}) for each in messages))
