"""Kernels in C for inference on CPUs, compiled where they run. See library.py."""

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
