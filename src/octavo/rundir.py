"""The run folder: every path, every file's schema, every metric's name.

    <run>/config.yaml        the resolved config, written before step 1
    <run>/ledger.json        LedgerEntry of each stage: what was spent
    <run>/summary.json       SummaryRow of each model: the closing table as data
    <run>/.lock              held by the process that writes the run (runlock.py)
    <run>/<stage>/           manifest.json, metrics.jsonl, rollouts.jsonl, samples.jsonl, evaluation.json,
                             text_score.json, vocabulary.json, self_test.json, model/ (Hugging Face layout), adapter/
                             (peft's), state/ (training checkpoints)

A row of `metrics.jsonl` is {"step": int, <metric name>: float, ...}; every row of a JSONL file that is written during
training has its `step`, so that a resumed run can drop what the lost steps had written.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from octavo.config import Config
from octavo.errors import DataError
from octavo.runlock import hold
from octavo.storage import append_jsonl as append_jsonl
from octavo.storage import read_json, write_json
from octavo.storage import read_jsonl as read_jsonl
from octavo.storage import truncate_after_step as truncate_after_step
from octavo.storage import write_atomic as write_atomic

RowT = TypeVar("RowT", bound=Config)

# Names of metrics, as they stand in metrics.jsonl.
LOSS = "loss"
MTP_LOSS = "mtp_loss"
BALANCE_LOSS = "balance_loss"
LEARNING_RATE = "learning_rate"
GRADIENT_NORM = "gradient_norm"
TOKENS = "tokens"
TOKENS_PER_SECOND = "tokens_per_second"
SECONDS = "seconds"
EXPERT_LOAD_MAX = "expert_load_max"
"""Load of the busiest expert over the mean load, the worst layer."""

REWARD = "reward"
REWARD_STD = "reward_std"
TIED_GROUPS = "tied_groups"
"""Share of groups whose rewards are all equal: they teach nothing."""
ENTROPY = "entropy"
CLIP_SHARE = "clip_share"
KL = "kl"
COMPLETION_TOKENS = "completion_tokens"
"""Mean length of a completion."""
FINISHED_SHARE = "finished_share"
VALIDATION_ACCURACY = "validation_accuracy"
"""Share of right answers on problems set apart, by which the best weights are chosen."""
CORRECT = "correct"
"""Share of right answers among those that were trained on."""


def expert_load_of(layer: int) -> str:
    """Name of EXPERT_LOAD_MAX of one sparse layer alone, counted from 1: `expert_load_max_3`."""
    return f"{EXPERT_LOAD_MAX}_{layer}"


class Manifest(Config):
    """What a stage was made from and what it made. Files and folders are named with their sha256."""

    stage: str
    kind: str
    """Which stage it is an instance of: pretrain, sft, grpo, ..."""
    fingerprint: str
    """Hash of config and inputs: the stage is run again when it changes."""
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    seed: int
    versions: dict[str, str]
    """Package -> version."""
    machine: dict[str, str | int | float]
    started_at: str
    """ISO 8601, UTC."""
    finished_at: str | None = None
    status: Literal["running", "finished"] = "running"


class LedgerEntry(Config):
    """What a stage spent."""

    stage: str
    tokens: int
    """Tokens trained on and generated."""
    flops: float
    """Floating-point operations by accounting, not by counting."""
    seconds: float
    """Wall clock."""
    peak_memory_bytes: int
    peak_memory_scope: Literal["stage", "process"] = "process"
    """Whether the peak is the stage's own, or the process's since it began."""
    joules: float | None = None
    """Energy; None in runs from before it was recorded."""
    joules_source: Literal["measured", "estimated"] | None = None
    """Read off the processor's counters, or computed from processor time: see energy.py."""


class SummaryRow(Config):
    """One row of the closing table; None where a column does not apply (a guess spends no tokens)."""

    stage: str
    pass_at_1: float | None = None
    low: float | None = None
    """Lower end of the 95% interval of pass@1."""
    high: float | None = None
    maj_at_8: float | None = None
    mean_completion_tokens: float | None = None
    finished_share: float | None = None
    """Completions that ended by themselves, before the limit of tokens."""
    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class StageDir:
    """Paths of one stage inside a run."""

    path: Path

    @property
    def model(self) -> Path:
        """Folder of the finished model, in Hugging Face layout."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """Folder of the adapters, in peft's layout, where only such were trained; `model` holds them too."""
        return self.path / "adapter"

    @property
    def state(self) -> Path:
        """Folder of the training checkpoints; not needed to use the model."""
        return self.path / "state"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def text_score(self) -> Path:
        return self.path / "text_score.json"

    @property
    def self_test(self) -> Path:
        return self.path / "self_test.json"

    @property
    def vocabulary(self) -> Path:
        """What new tokens did to the ways in which texts are cut."""
        return self.path / "vocabulary.json"

    @property
    def clock(self) -> Path:
        """Seconds and memory so far, while the stage runs."""
        return self.path / "clock.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.manifest, manifest.dump())

    def read_manifest(self) -> Manifest | None:
        """None where there is none yet. Raises DataError or ConfigError where it cannot be read."""
        return Manifest.parse(read_json(self.manifest), str(self.manifest)) if self.manifest.exists() else None


class RunDir:
    """Paths of one run."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.json"

    def stage(self, name: str) -> StageDir:
        return StageDir(self.path / name)

    def write_summary(self, rows: Iterable[SummaryRow]) -> None:
        write_json(self.summary_path, [row.dump() for row in rows])

    def read_summary(self) -> list[SummaryRow]:
        return _read_rows(self.summary_path, SummaryRow)

    def write_ledger(self, entries: Iterable[LedgerEntry]) -> None:
        write_json(self.ledger_path, [entry.dump() for entry in entries])

    def read_ledger(self) -> list[LedgerEntry]:
        return _read_rows(self.ledger_path, LedgerEntry)

    @property
    def log_path(self) -> Path:
        """What the run says when it is started from a page, not from a terminal."""
        return self.path / "resumed.log"

    @property
    def lock_path(self) -> Path:
        return self.path / ".lock"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for this process. Raises ConfigError where another process holds it."""
        return hold(self.lock_path)


def _read_rows(path: Path, kind: type[RowT]) -> list[RowT]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of rows, got {type(rows).__name__}")
    return [kind.parse(row, f"{path} row {number}") for number, row in enumerate(rows, start=1)]
