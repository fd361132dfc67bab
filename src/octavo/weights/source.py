"""Where weights come from: named tensors that are read one at a time, whatever the file format."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from torch import Tensor


class TensorSource(ABC):
    """Tensors by their Hugging Face names. Cheap to open; only `read` takes memory, for one tensor.

    Every method raises CheckpointError naming the file (and the tensor) for what is damaged or not supported.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        """What messages about the source as a whole name: its file, or the index of its files."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """Hugging Face names of all tensors."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in the Hugging Face layout: matrices are [out, in]. Also refuses types that `read` does not know."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """The tensor in float32 and in the Hugging Face layout, dequantized. Not to be written to."""

    def file(self, name: str) -> Path:
        """The file that holds the tensor, for messages about it."""
        return self.where

    @abstractmethod
    def close(self) -> None:
        """Let go of the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown(text: object, most: int = 200) -> str:
    """Something that a file says, fit for a message in one line: printable, and not longer than `most` characters."""
    plain = str(text)[: most + 1]
    if not plain.isprintable():
        plain = ascii(plain)[1:-1]
    return plain if len(plain) <= most else f"{plain[:most]}..."
