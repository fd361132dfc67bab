"""The machine as a stage sees it: rank, device, dtype, threads, seeds. The only reader of RANK and WORLD_SIZE."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.errors import ConfigError

if TYPE_CHECKING:  # torch loads where it is used
    import torch

FAST_BFLOAT16 = 1.5
"""bfloat16 is chosen where its product runs at least so many times as fast as float32's."""


@dataclass(frozen=True)
class World:
    """Who computes: `rank` of `size` processes, on `device`, in `dtype`."""

    rank: int
    size: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def single(cls, device: str = "cpu", dtype: torch.dtype | None = None) -> World:
        """One process. `dtype` None is float32."""
        import torch

        return cls(rank=0, size=1, device=torch.device(device), dtype=dtype or torch.float32)

    @classmethod
    def from_environment(cls, device: str | None = None, dtype: torch.dtype | None = None) -> World:
        """Read RANK and WORLD_SIZE (torchrun sets them) and join the process group if there are several.

        `device` None is the best there is; `dtype` None is float32: a measured choice (`preferred_dtype`) belongs in
        the resolved config, else a resumed run might measure otherwise. Raises ConfigError where variables contradict.
        """
        import torch
        import torch.distributed

        size = _environment_int("WORLD_SIZE", 1)
        rank = _environment_int("RANK", 0)
        if not 0 <= rank < size:
            raise ConfigError(f"RANK={rank} and WORLD_SIZE={size}: expected 0 <= RANK < WORLD_SIZE")
        chosen = torch.device(device or choose_device())
        if chosen.type == "cuda":
            chosen = torch.device("cuda", _environment_int("LOCAL_RANK", 0))
        if size > 1:
            missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
            if missing:
                raise ConfigError(
                    f"WORLD_SIZE={size}, but {' and '.join(missing)} not set: start the ranks with torchrun"
                )
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, rank=rank, world_size=size)
        return cls(rank, size, chosen, dtype or torch.float32)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def all_reduce_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum in place over all ranks, and return the tensor."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()


def choose_device() -> str:
    """The best device of this machine: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def fast_bfloat16(device: torch.device | str = "cpu", size: int = 512, repeats: int = 3) -> float:
    """Speed of a bfloat16 matrix product over float32's, measured here and now (the best of `repeats` each)."""
    import torch

    def best_seconds(dtype: torch.dtype) -> float:
        left = torch.ones(size, size, device=device, dtype=dtype)
        times = []
        for _ in range(repeats + 1):  # the first one warms up
            start = time.perf_counter()
            (left @ left)[0, 0].item()  # .item() waits for the device
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return best_seconds(torch.float32) / best_seconds(torch.bfloat16)


def preferred_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 where the probe says that it is fast, else float32."""
    import torch

    return torch.bfloat16 if fast_bfloat16(device) >= FAST_BFLOAT16 else torch.float32


def set_threads(threads: int) -> None:
    """Compute with so many threads. The order of sums, and so the last bits of a result, depend on it."""
    if threads < 1:
        raise ConfigError(f"threads: expected at least 1, got {threads}")
    import torch

    torch.set_num_threads(threads)


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed of its own (63 bits) for each path of names under a run's seed; the same on every machine."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """State of the global generators, as plain values and tensors that a checkpoint can hold."""
    import numpy
    import torch

    mersenne: Any = numpy.random.get_state()
    name, keys, *rest = mersenne
    state = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned."""
    import numpy
    import torch

    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _environment_int(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name}: expected a whole number, got {text!r}") from None
