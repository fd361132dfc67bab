"""How far a transfer is: a live bar on a terminal, a line now and then in a pipe, nothing where JSON is wanted."""

import sys
import time
from abc import ABC, abstractmethod
from typing import TextIO, final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from octavo.pull.cache import gigabytes


class Meter(ABC):
    """What a transfer tells the outside. One subclass per kind of reader."""

    @abstractmethod
    def note(self, text: str) -> None:
        """One sentence that the reader should see."""

    @abstractmethod
    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """`what` is being transferred; of all that is wanted, `done_bytes` of `total_bytes` are here."""

    def close(self) -> None:  # noqa: B027  only a live bar has something to put away
        """Leave the terminal as it was found."""


def open_meter(as_json: bool = False, stream: TextIO | None = None) -> Meter:
    """The meter that suits the stream (standard output if not given)."""
    stream = stream or sys.stdout
    assert stream is not None, "the process has no standard output"
    if as_json:
        return SilentMeter()
    return LiveMeter(Console(file=stream)) if stream.isatty() else PlainMeter(stream)


@final
class SilentMeter(Meter):
    def note(self, text: str) -> None: ...

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None: ...


@final
class PlainMeter(Meter):
    """Lines without control codes, at most one each `every_seconds`."""

    def __init__(self, stream: TextIO, every_seconds: float = 10.0):
        self.stream = stream
        self.every_seconds = every_seconds
        self._last_shown = time.monotonic()

    def note(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._last_shown >= self.every_seconds:
            self._last_shown = now
            self.note(f"  {gigabytes(done_bytes)} of {gigabytes(total_bytes)}  {what}")


@final
class LiveMeter(Meter):
    """One bar for all files of a transfer."""

    def __init__(self, console: Console):
        self.console = console
        self._progress: Progress | None = None

    def note(self, text: str) -> None:
        self.close()
        self.console.print(Text(text))

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._progress.add_task(what, total=total_bytes, completed=done_bytes)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], description=what, total=total_bytes, completed=done_bytes)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
