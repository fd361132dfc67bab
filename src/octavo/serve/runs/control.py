"""Stop a run, and go on with it: the process that writes it is asked to leave; a new one takes up the same recipe.

Nothing that is executed comes out of a file of the run: the command is always this Octavo's own, on the recipe that
stands in the run folder.
"""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

from octavo.errors import ConfigError, StorageError
from octavo.rundir import RunDir
from octavo.runlock import holder, started_in

_LOG_END_BYTES = 2000


@dataclass(frozen=True)
class Start:
    """What became of a run that was taken up here and is not writing (yet)."""

    exit_code: int | None
    """None: it is still starting."""
    words: str = ""
    """The last that it said."""


class Controls:
    """Stops runs and takes them up, and remembers which ones it started. Many threads may ask."""

    def __init__(self) -> None:
        self._started: dict[Path, subprocess.Popen[bytes]] = {}
        self._turn = threading.Lock()

    def stop(self, run: RunDir) -> int:
        """Ask the process that writes the run to stop, as Ctrl-C does; its number. It leaves within its present step.

        Raises ConfigError where no process of this machine writes it.
        """
        process = holder(run.lock_path)
        if process is None:
            raise ConfigError(f"{run.path.name}: no process of this machine is writing this run: nothing to stop")
        try:
            process.terminate()  # psutil looks again that it is still the same process
        except psutil.Error as error:
            raise ConfigError(f"{run.path.name}: process {process.pid} cannot be stopped: {error}") from error
        return process.pid

    def resume(self, run: RunDir) -> int:
        """Start the run in a process of its own, which outlives this one; its number. It goes on where the run was.

        Raises ConfigError where it is being written or has no recipe, StorageError where nothing can be written there.
        """
        with self._turn:
            known = self._started.get(run.path)
            process = holder(run.lock_path)
            if process or (known and known.poll() is None):
                pid = process.pid if process else known and known.pid
                raise ConfigError(f"{run.path.name}: process {pid} is writing this run already")
            if not run.config_path.is_file():
                raise ConfigError(f"{run.path.name}: there is no config.yaml to go on from")
            started = self._started[run.path] = _start(run)
        threading.Thread(target=started.wait, daemon=True).start()  # else it would stay as a zombie when it has ended
        return started.pid

    def started(self, run: RunDir) -> Start | None:
        """What became of the run's last start here; None where there was none, or it went well."""
        process = self._started.get(run.path)
        if process is None or process.returncode == 0 or holder(run.lock_path):
            return None
        return Start(process.returncode, "" if process.returncode is None else _last_words(run.log_path))


def resume_command(run: RunDir) -> list[str]:
    """The run's recipe, as it stands resolved in the run folder, with this Octavo, wherever it is started."""
    recipe, folder = run.config_path.resolve(), run.path.resolve()
    return [sys.executable, "-P", "-m", "octavo.cli", "run", str(recipe), "--out", str(folder)]


def _start(run: RunDir) -> subprocess.Popen[bytes]:
    try:
        with open(run.log_path, "ab") as log:
            return subprocess.Popen(
                resume_command(run),
                cwd=started_in(run.lock_path) or Path.cwd(),  # paths in the recipe are relative to it
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C for this process is not meant for it
            )
    except OSError as error:
        raise StorageError(f"{run.path.name}: cannot be started again: {error.strerror or error}") from error


def _last_words(path: Path) -> str:
    """The last line of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_END_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
