"""The kernels as functions of tensors, whether they can be used here, and why not.

Kernels are for float32 on CPUs and for inference: they know nothing of gradients. Everything that they compute has a
way through torch too, which is used where they cannot be had (no compiler, a failed check, OCTAVO_NATIVE=0).

Shapes: `R` rows, `I` inputs, `O` outputs, `V` vocabulary.
"""

import ctypes
import os
from ctypes import POINTER, byref, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from octavo.native import structures
from octavo.native.build import NoKernelsError, build
from octavo.native.structures import FLOAT_ROWS, Matrix, Model, Tokens

SWITCH = "OCTAVO_NATIVE"
"""Environment variable; 0 keeps the kernels from being used."""

_ALIGNMENT = 64


@dataclass(frozen=True)
class Status:
    """Whether kernels are used, and what they were made with, or why not."""

    used: bool
    why: str


def status() -> Status:
    """Compiles the kernels if nobody has: a few seconds, once."""
    if os.environ.get(SWITCH) == "0":
        return Status(False, f"switched off by {SWITCH}=0")
    library, why = _load()
    return Status(library is not None, why)


def available() -> bool:
    """Whether kernels can be used here and now."""
    return os.environ.get(SWITCH) != "0" and _load()[0] is not None


def serves(*tensors: Tensor) -> bool:
    """Whether kernels can compute with these tensors now: float32 on the CPU, no gradient wanted."""
    return (
        not torch.is_grad_enabled()
        and all(tensor.dtype is torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        and available()
    )


def scratch(size: int) -> Tensor:
    """Memory for one call, not yet written."""
    return torch.empty(size + _ALIGNMENT, dtype=torch.uint8)


def aligned(memory: Tensor) -> int:
    """Address in `scratch` memory where a call may begin."""
    return (memory.data_ptr() + _ALIGNMENT - 1) & -_ALIGNMENT


def multiply(matrix: Matrix, x_RI: Tensor) -> Tensor:
    """x W^T + bias: [R, O]. W is of kind FLOAT_ROWS or INT8; x is float32 on the CPU."""
    library = _library()
    x_RI = x_RI.contiguous()
    y_RO = torch.empty(len(x_RI), matrix.outputs)
    memory = scratch(library.octavo_multiply_bytes(len(x_RI), matrix.inputs))
    library.octavo_multiply(
        byref(matrix), x_RI.data_ptr(), len(x_RI), y_RO.data_ptr(), aligned(memory), torch.get_num_threads()
    )
    return y_RO


def sample(logits_RV: Tensor, temperature_R: np.ndarray, uniform_R: np.ndarray) -> tuple[Tensor, Tensor] | None:
    """Ids and log-probs drawn from whole distributions; None where logits are not finite. See engine/sampler.py."""
    logits_RV = logits_RV.contiguous()
    temperature_R, uniform_R = np.ascontiguousarray(temperature_R, np.float32), np.ascontiguousarray(uniform_R)
    rows, vocabulary = logits_RV.shape
    ids_R, logprobs_R = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    whole = _library().octavo_sample(
        logits_RV.data_ptr(),
        rows,
        vocabulary,
        temperature_R.ctypes.data,
        uniform_R.ctypes.data,
        ids_R.data_ptr(),
        logprobs_R.data_ptr(),
        torch.get_num_threads(),
    )
    return (ids_R, logprobs_R) if whole else None


def extend_bytes(model: Model, tokens: int, longest: int) -> int:
    """Scratch memory that `extend` needs."""
    size = _library().octavo_extend_bytes(byref(model), tokens, longest, torch.get_num_threads())
    assert size >= 0, f"{torch.get_num_threads()} threads are more than the kernels were made for"
    return size


def extend(model: Model, tokens: Tokens, memory: Tensor) -> None:
    """Write the hidden states of new tokens over their embeddings, and append them to the cache."""
    _library().octavo_extend(byref(model), byref(tokens), aligned(memory), torch.get_num_threads())


def _library() -> ctypes.CDLL:
    library, why = _load()
    assert library is not None, why
    return library


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    try:
        library, made_with = build()
        _declare(library)
        _check(library)
    except NoKernelsError as error:
        return None, str(error)
    return library, f"{made_with}, vectors of {library.octavo_sizes(len(structures.ALL))} floats"


def _declare(library: ctypes.CDLL) -> None:
    signatures = {
        "sizes": (c_int64, [c_int64]),
        "multiply_bytes": (c_int64, [c_int64, c_int64]),
        "multiply": (None, [POINTER(Matrix), c_void_p, c_int64, c_void_p, c_void_p, c_int64]),
        "sample": (c_int64, [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p, c_int64]),
        "extend_bytes": (c_int64, [POINTER(Model), c_int64, c_int64, c_int64]),
        "extend": (None, [POINTER(Model), POINTER(Tokens), c_void_p, c_int64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"octavo_{name}")
        function.restype, function.argtypes = result, arguments


def _check(library: ctypes.CDLL) -> None:
    """That this compiler laid out what we hand over as we do, and that a product is right on this processor."""
    for index, structure in enumerate(structures.ALL):
        if library.octavo_sizes(index) != ctypes.sizeof(structure):
            raise NoKernelsError(f"{structure.__name__} has another size than expected")
    rows, outputs, inputs = 7, 19, 37
    x = ((np.arange(rows * inputs) * 7919) % 17 - 8).astype(np.float32).reshape(rows, inputs)
    w = ((np.arange(outputs * inputs) * 104_729) % 13 - 6).astype(np.float32).reshape(outputs, inputs)
    y = np.zeros((rows, outputs), np.float32)
    memory = np.zeros(library.octavo_multiply_bytes(rows, inputs), np.uint8)
    matrix = Matrix(FLOAT_ROWS, outputs, inputs, w.ctypes.data)
    library.octavo_multiply(byref(matrix), x.ctypes.data, rows, y.ctypes.data, memory.ctypes.data, 1)
    if not np.array_equal(y, x @ w.T):  # small whole numbers: exact in any order
        raise NoKernelsError("the compiled product gives wrong results")
