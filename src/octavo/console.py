"""What a run shows while it works: a live line on a terminal, plain lines in a pipe, JSON lines for machines.

A display only shows. Whatever is shown also stands in the run folder (metrics.jsonl, summary.json).
"""

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO, final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from octavo.rundir import SummaryRow


@dataclass(frozen=True)
class Progress:
    """How far a stage is. `figures` are what the stage is judged by (loss, reward, accuracy, ...), ready to print."""

    stage: str
    step: int
    steps: int | None
    """None: not known beforehand."""
    figures: Mapping[str, float]
    tokens_per_second: float
    seconds_left: float | None
    memory_bytes: int


class Display(ABC):
    """What a run tells the outside. One subclass per kind of reader."""

    @abstractmethod
    def note(self, text: str) -> None:
        """One sentence that the reader should see."""

    @abstractmethod
    def stage_started(self, stage: str, kind: str, number: int, count: int) -> None: ...

    @abstractmethod
    def progress(self, progress: Progress) -> None: ...

    @abstractmethod
    def stage_finished(self, stage: str, seconds: float) -> None: ...

    @abstractmethod
    def closing(
        self, rows: Sequence[SummaryRow], seconds_by_stage: Mapping[str, float], command_seconds: float
    ) -> None:
        """The closing table: what every model scored, and where the time went.

        `seconds_by_stage` is over all pieces of a run, `command_seconds` of this command alone.
        """

    def outcome(self, found: Mapping[str, Any], lines: Sequence[str]) -> None:
        """What came of it all: data for machines, the same in words for people."""
        del found
        for line in lines:
            self.note(line)

    def close(self) -> None:  # noqa: B027  only a live display has something to put away
        """Leave the terminal as it was found."""


def open_display(as_json: bool = False, stream: TextIO | None = None) -> Display:
    """The display that suits the stream: JSON lines if asked for, live on a terminal, plain lines elsewhere."""
    stream = stream or sys.stdout
    assert stream is not None, "the process has no standard output"
    if as_json:
        return JsonDisplay(stream)
    if stream.isatty():
        return LiveDisplay(Console(file=stream))
    return PlainDisplay(stream)


@final
class PlainDisplay(Display):
    """Lines without control codes; of a stage's steps at most one line each `every_seconds`."""

    def __init__(self, stream: TextIO, every_seconds: float = 10.0):
        self.stream = stream
        self.every_seconds = every_seconds
        self._last_shown = -every_seconds

    def note(self, text: str) -> None:
        self._line(text)

    def stage_started(self, stage: str, kind: str, number: int, count: int) -> None:
        self._last_shown = time.monotonic()
        self._line(f"[{number}/{count}] {stage} ({kind})")

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last_shown >= self.every_seconds:
            self._last_shown = now
            self._line(f"  {progress_text(progress)}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        self._line(f"  {stage} finished in {duration(seconds)}")

    def closing(
        self, rows: Sequence[SummaryRow], seconds_by_stage: Mapping[str, float], command_seconds: float
    ) -> None:
        print_closing(Console(file=self.stream, width=120, color_system=None), rows, seconds_by_stage, command_seconds)

    def _line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


@final
class JsonDisplay(Display):
    """One JSON object a line, each with an `event`; nothing else on the stream."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def note(self, text: str) -> None:
        self._event("note", text=text)

    def stage_started(self, stage: str, kind: str, number: int, count: int) -> None:
        self._event("stage_started", stage=stage, kind=kind, number=number, count=count)

    def progress(self, progress: Progress) -> None:
        self._event("progress", **asdict(progress))

    def stage_finished(self, stage: str, seconds: float) -> None:
        self._event("stage_finished", stage=stage, seconds=seconds)

    def closing(
        self, rows: Sequence[SummaryRow], seconds_by_stage: Mapping[str, float], command_seconds: float
    ) -> None:
        self._event(
            "finished",
            rows=[row.model_dump(mode="json") for row in rows],
            seconds_by_stage=dict(seconds_by_stage),
            seconds=sum(seconds_by_stage.values()),
            command_seconds=command_seconds,
        )

    def outcome(self, found: Mapping[str, Any], lines: Sequence[str]) -> None:
        del lines
        self._event("outcome", **found)

    def _event(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self.stream, flush=True)


@final
class LiveDisplay(Display):
    """One line at the bottom of a terminal that moves with the stage; what is finished stays above it."""

    def __init__(self, console: Console):
        self.console = console
        self._live: Live | None = None
        self._title = ""

    def note(self, text: str) -> None:
        self.console.print(Text(text))

    def stage_started(self, stage: str, kind: str, number: int, count: int) -> None:
        self.close()
        self._title = f"[{number}/{count}] {stage}"
        self._live = Live(Text(self._title), console=self.console, refresh_per_second=4, transient=True)
        self._live.start()

    def progress(self, progress: Progress) -> None:
        if self._live is None:
            return
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=progress.steps, completed=progress.step, width=16, pulse=progress.steps is None)
        line.add_row(
            Text(self._title, style="bold"), bar, Text(progress_text(progress), overflow="ellipsis", no_wrap=True)
        )
        self._live.update(line)

    def stage_finished(self, stage: str, seconds: float) -> None:
        self.close()
        self.console.print(Text.assemble((self._title, "bold"), f"  finished in {duration(seconds)}"))

    def closing(
        self, rows: Sequence[SummaryRow], seconds_by_stage: Mapping[str, float], command_seconds: float
    ) -> None:
        print_closing(self.console, rows, seconds_by_stage, command_seconds)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def progress_text(progress: Progress) -> str:
    """`step 30/100  loss 2.31  1,204 tokens/s  0.8 GB  2m 10s left`; what is not known is left out."""
    total = "" if progress.steps is None else f"/{progress.steps}"
    parts = [f"step {progress.step}{total}"]
    parts += [f"{name} {value:.3g}" for name, value in progress.figures.items()]
    if progress.tokens_per_second > 0:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    parts.append(f"{progress.memory_bytes / 1e9:.2f} GB")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`0.4s`, `42s`, `3m 05s`, `2h 07m`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def count(number: int) -> str:
    """`950`, `20k`, `3.4M`, `1.2G`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.{0 if number >= 10 * size else 1}f}{letter}"
    return str(number)


def interval(low: float | None, high: float | None) -> str:
    """`81.2 to 86.0%`, or a dash."""
    return "-" if low is None or high is None else f"{100 * low:.1f} to {high:.1%}"


def plain_table(title: str | None = None) -> Table:
    """A table without boxes, which fits into 80 columns and reads well in a file."""
    return Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))


def print_closing(
    console: Console, rows: Sequence[SummaryRow], seconds_by_stage: Mapping[str, float], command_seconds: float
) -> None:
    """The closing table: one row a model, then the time of every stage, longest first."""
    table = plain_table("What every stage did, on held-out problems")
    table.add_column("stage")
    for name in ("pass@1", "95% interval", "maj@8", "length", "finished", "tokens", "FLOPs", "time"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.stage,
            _or_dash(row.pass_at_1, "{:.1%}"),
            interval(row.low, row.high),
            _or_dash(row.maj_at_8, "{:.1%}"),
            _or_dash(row.mean_completion_tokens, "{:.0f}"),
            _or_dash(row.finished_share, "{:.1%}"),
            "-" if row.tokens is None else count(row.tokens),
            _or_dash(row.flops, "{:.1e}"),
            "-" if row.seconds is None else duration(row.seconds),
        )
    if rows:
        console.print(table)
    spent = sorted(seconds_by_stage.items(), key=lambda item: -item[1])
    console.print(Text("Time: " + ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in spent)))
    whole = f"All stages {duration(sum(seconds_by_stage.values()))}; this command {duration(command_seconds)}."
    console.print(Text(whole, style="bold"))


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
