"""What this machine can do, measured in a few seconds, and what follows from it.

Units: GFLOP/s are 10^9 floating-point operations a second, GB are 10^9 bytes.
"""

import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from octavo import native
from octavo.recipe import Recipe, load_recipe, shipped_recipes
from octavo.rundir import RunDir
from octavo.stages.cost import training_cost
from octavo.stages.pretrain import PretrainStage

_PRODUCT_SIZE = 1024
_BANDWIDTH_BYTES = 256_000_000
_MEASURE_SECONDS = 0.5


@dataclass(frozen=True)
class RecipeEstimate:
    """What is known of a recipe's time here. `measured_seconds` is of a run of it under ./runs, if there is one."""

    recipe: str
    pretraining_flops: float
    """Training FLOPs of its new models: the part that is known beforehand."""
    least_seconds: float
    """Those FLOPs at the measured rate of large products: a lower limit, no forecast."""
    measured_seconds: float | None


@dataclass(frozen=True)
class Examination:
    processor: str
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    torch_version: str
    threads: int
    float32_gflops: float
    bfloat16_gflops: float
    bandwidth_gb_per_second: float
    dtype: str
    kernels_used: bool
    kernels_why: str
    """What the kernels were made with, or why they are not used."""
    recipes: tuple[RecipeEstimate, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> Examination:
    """Measure this machine: about three seconds."""
    memory = psutil.virtual_memory()
    float32 = product_gflops(torch.float32)
    bfloat16 = product_gflops(torch.bfloat16)
    kernels = native.status()
    return Examination(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=memory.total,
        memory_free_bytes=memory.available,
        disk_free_bytes=shutil.disk_usage(Path.cwd()).free,
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
        float32_gflops=float32,
        bfloat16_gflops=bfloat16,
        bandwidth_gb_per_second=copy_bandwidth(),
        dtype="bfloat16" if bfloat16 > float32 else "float32",
        kernels_used=kernels.used,
        kernels_why=kernels.why,
        recipes=tuple(_estimate(recipe, float32) for recipe in _recipes()),
    )


def product_gflops(dtype: torch.dtype) -> float:
    """Rate of a square matrix product, GFLOP/s."""
    # Where a dtype is emulated, one large product can take a second: begin small and stop there if it is slow.
    for size in (_PRODUCT_SIZE // 4, _PRODUCT_SIZE):
        left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        seconds = _best_seconds(lambda left=left, right=right: left @ right)
        if seconds > _MEASURE_SECONDS / 50:
            break
    return 2 * size**3 / seconds / 1e9


def copy_bandwidth() -> float:
    """Memory bandwidth of a copy that does not fit into caches, read + written, GB/s."""
    source = torch.ones(_BANDWIDTH_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * _BANDWIDTH_BYTES / _best_seconds(lambda: target.copy_(source)) / 1e9


def _best_seconds(work: Callable[[], object]) -> float:
    """Shortest time of one call, over about half a second of calls after one to warm up."""
    work()
    best, end = float("inf"), time.perf_counter() + _MEASURE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best if best < float("inf") else _MEASURE_SECONDS


def _recipes() -> list[Recipe]:
    """Shipped recipes that press a new model; what training open weights costs is not known before these are here."""
    recipes = [load_recipe(name) for name in shipped_recipes()]
    return [recipe for recipe in recipes if any(_is_new(stage) for stage in recipe.stages.values())]


def _is_new(stage: object) -> bool:
    return isinstance(stage, PretrainStage) and stage.model is not None


def _estimate(recipe: Recipe, gflops: float) -> RecipeEstimate:
    flops = sum(
        training_cost(stage.model, stage.loop.steps * stage.tokens_per_step, stage.tokens_per_row).flops
        for stage in recipe.stages.values()
        if isinstance(stage, PretrainStage) and stage.model is not None
    )
    run = RunDir(Path("runs") / recipe.name)
    ledger = run.read_ledger() if run.ledger_path.exists() else []
    whole = set(recipe.stages) <= {entry.stage for entry in ledger}
    return RecipeEstimate(
        recipe=recipe.name,
        pretraining_flops=flops,
        least_seconds=flops / (gflops * 1e9),
        measured_seconds=sum(entry.seconds for entry in ledger) if whole else None,
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_examination(found: Examination) -> None:
    """The examination as a table, then what it means."""
    console = Console()
    table = Table(show_header=False, box=None)
    for name, value in (
        ("processor", f"{found.processor}, {found.cores} cores"),
        ("memory", f"{found.memory_bytes / 1e9:.1f} GB, {found.memory_free_bytes / 1e9:.1f} GB free"),
        ("disk", f"{found.disk_free_bytes / 1e9:.1f} GB free here"),
        ("torch", f"{found.torch_version}, {found.threads} threads"),
        ("native kernels", f"{'used' if found.kernels_used else 'not used'}: {found.kernels_why}"),
        ("float32 product", f"{found.float32_gflops:.1f} GFLOP/s"),
        ("bfloat16 product", f"{found.bfloat16_gflops:.1f} GFLOP/s"),
        ("memory bandwidth", f"{found.bandwidth_gb_per_second:.1f} GB/s (copy, read + written)"),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(f"\n{found.dtype} is the faster dtype for products here; Octavo trains in float32 on a CPU.")
    for recipe in found.recipes:
        if recipe.measured_seconds is not None:
            known = f"took {recipe.measured_seconds / 60:.1f} min here (runs/{recipe.recipe})"
        else:
            least = f"{recipe.least_seconds / 60:.1f} min"
            known = f"at least {least} for pretraining alone, were all of it large products; not run here yet"
        console.print(f"recipe {recipe.recipe}: {known}", highlight=False)
