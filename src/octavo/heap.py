"""What this process has taken from the system and does not use.

Tensors on a CPU come from the C library's heap. glibc keeps what is freed there unless it lies at the very end, and
puts there all blocks below a threshold, which grows up to 32 MiB as larger ones are freed. A training step, whose
samples, activations and gradients come and go in different sizes, so has several hundred megabytes of holes.

Elsewhere than on glibc (musl, macOS, Windows) nothing is done.
"""

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_APART_BYTES = 4 << 20
"""Blocks from here on are the system's again as soon as they are freed. Smaller ones come too often: each has to be
filled with zeros page by page."""


def keep_large_blocks_apart() -> None:
    """Fix the threshold, for the rest of the process."""
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, _APART_BYTES)


def give_back() -> None:
    """Return the holes to the system. Takes some milliseconds, and the next use of the memory some more."""
    if library := _glibc():
        library.malloc_trim(ctypes.c_size_t(0))


@contextmanager
def tidied() -> Iterator[None]:
    """Around work that takes much memory in other sizes than what comes before and after it, as sampling does: neither
    would fit into the holes that the other leaves."""
    give_back()
    yield
    give_back()


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
