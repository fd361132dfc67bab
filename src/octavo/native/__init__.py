"""Kernels in C for CPUs, compiled where they run: library.py for inference, training.py for training."""

from octavo.native.library import (
    SWITCH,
    Status,
    available,
    extend,
    extend_bytes,
    multiply,
    sample,
    scratch,
    serves,
    status,
)

__all__ = [
    "SWITCH",
    "Status",
    "available",
    "extend",
    "extend_bytes",
    "multiply",
    "sample",
    "scratch",
    "serves",
    "status",
]
