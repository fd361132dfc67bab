"""Running code that nobody vouches for: without network, within limits, and gone afterwards.

Three ways, the first that works on this machine: bubblewrap; the same by Linux namespaces, made by hand; limits alone,
in a process of its own (macOS, and containers that allow no more). What a way really holds is tried out, once, and can
be written down with a run (`Isolation`). The program inside is `octavo.tasks.inside`.
"""

import dataclasses
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import octavo
from octavo.config import Config
from octavo.errors import GradingError
from octavo.tasks import processes
from octavo.tasks.time_limit import TimeLimitExceeded

IsolationName = Literal["bubblewrap", "namespaces", "rlimits"]

_PACKAGE = Path(octavo.__file__).parent
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/ld.so.cache")
# The package's folder is left again before anything foreign runs, so that only the standard library can be imported.
_PROGRAM = "import sys; sys.path.insert(0, {!r}); from octavo.tasks.inside.harness import main; del sys.path[0]; main()"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
_MAX_VERDICT_BYTES = 2**20
_FIRST_UNUSED_USER = 100_000_000


class SandboxLimits(Config):
    """What code in the sandbox may use."""

    cpu_seconds: int = Field(default=5, gt=0)
    """Processor time of each process; more is a failure of the code."""
    wall_seconds: float = Field(default=20.0, gt=0)
    """Time on the clock for all. More is a time-out, since the machine may be at fault."""
    memory_bytes: int = Field(default=512 * 2**20, ge=64 * 2**20)
    """Address space of each process."""
    processes: int = Field(default=16, gt=0)
    """Processes and threads that it may start."""
    open_files: int = Field(default=64, ge=16)
    """Files open at once, of each process."""
    files: int = Field(default=1000, gt=0)
    """Files that it may make (namespaces only)."""
    file_bytes: int = Field(default=16 * 2**20, ge=0)
    """Size of each file."""
    disk_bytes: int = Field(default=64 * 2**20, gt=0)
    """Size of all files, which lie in memory (not with rlimits)."""


@dataclasses.dataclass(frozen=True)
class Isolation:
    """A way of isolating, and what trying it out has shown."""

    name: IsolationName
    drop_user: bool
    """Where octavo runs as root: whether the code runs as a user without rights."""
    no_network: bool = False
    """Not even this machine's own ports can be reached."""
    no_files: bool = False
    """Files of the user can neither be read nor written."""
    few_processes: bool = False
    """The number of processes is limited."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Which tests passed, in order; `detail` says how the first other one failed."""

    results: tuple[bool, ...]
    detail: str

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(self.results)


def run_tests(
    solution: str,
    tests: Sequence[str],
    entry_point: str | None = None,
    limits: SandboxLimits | None = None,
    isolation: Isolation | None = None,
) -> Verdict:
    """Run Python tests against a Python solution (see `inside.harness.run_tests` for their forms).

    A solution that ends itself, hangs on the processor or uses too much memory fails its tests. Raises
    TimeLimitExceeded after `limits.wall_seconds`, and GradingError if there is no verdict that can be trusted.
    """
    limits = limits or SandboxLimits()
    isolation = isolation or find_isolation()
    job = {
        "solution": solution,
        "isolation": isolation.name,
        "visible": _visible(),
        "become_user": _FIRST_UNUSED_USER + secrets.randbelow(10**9) if isolation.drop_user else None,
        "limits": {**limits.dump(), "processes_of_user": _processes_of_user() if isolation.name == "rlimits" else 0},
    }
    # The second part is read when the solution's process is there already, which so never sees it.
    nonce = secrets.token_hex(16)
    message = _frame(job) + _frame({"tests": list(tests), "entry_point": entry_point, "nonce": nonce})
    out, err = _run(_command(isolation.name, limits), message, limits.wall_seconds, isolation.name)
    try:
        verdict = json.loads(out[8:])
    except ValueError:
        verdict = None
    if not isinstance(verdict, dict) or verdict.get("nonce") != nonce:
        said = " ".join(err.decode(errors="replace").split())[-300:]
        raise GradingError(f"the sandbox ({isolation.name}) ended without a verdict: {said or 'no reason given'}")
    return Verdict(tuple(bool(result) for result in verdict["results"]), str(verdict["detail"]))


@lru_cache(maxsize=1)
def find_isolation() -> Isolation:
    """The first way that works here, with what it holds. Raises GradingError if none does."""
    failures = []
    for isolation in candidates():
        try:
            return measure(isolation)
        except GradingError as error:
            failures.append(str(error))
    raise GradingError(f"code cannot be run on this machine: {'; '.join(failures)}")


def candidates() -> list[Isolation]:
    """Ways that may work here, best first."""
    root = os.name == "posix" and os.getuid() == 0
    names: list[IsolationName] = ["rlimits"]
    if sys.platform == "linux":
        names = ["namespaces", "rlimits"]
        if shutil.which("bwrap"):
            names = ["bubblewrap", *names]
    ways = [Isolation(name, drop_user=root) for name in names]
    return [*ways, Isolation("rlimits", drop_user=False)] if root else ways


def measure(isolation: Isolation) -> Isolation:
    """Try it out: the same way, with what it holds. Raises GradingError if it does not work at all."""
    with tempfile.TemporaryDirectory() as folder, closing(socket.create_server(("127.0.0.1", 0))) as server:
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        port = server.getsockname()[1]
        limits = SandboxLimits(processes=4, wall_seconds=20.0)
        tests = [
            "assert works() == 6",
            f"assert not reaches({port})",
            f"assert not reads({str(secret)!r}) and not writes({str(secret)!r})",
            "assert starts(8) < 8",
        ]
        try:
            verdict = run_tests(_PROBE, tests, limits=limits, isolation=isolation)
        except TimeLimitExceeded as error:
            raise GradingError(f"the sandbox ({isolation.name}) took over {limits.wall_seconds:g} s") from error
    works, no_network, no_files, few_processes = verdict.results
    if not works:
        raise GradingError(f"the sandbox ({isolation.name}) does not work here: {verdict.detail}")
    return dataclasses.replace(isolation, no_network=no_network, no_files=no_files, few_processes=few_processes)


_PROBE = """
import fractions, os, signal, socket

def works():
    return fractions.Fraction(3, 2) * 4

def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False

def reads(path):
    try:
        return bool(open(path).read())
    except OSError:
        return False

def writes(path):
    try:
        open(path, "a").close()
        return True
    except OSError:
        return False

def starts(wanted):
    started = []
    try:
        for _ in range(wanted):
            child = os.fork()
            if child == 0:
                signal.pause()
            started.append(child)
    except OSError:
        pass
    for child in started:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(started)
"""


def _run(command: Sequence[str], message: bytes, seconds: float, name: IsolationName) -> tuple[bytes, bytes]:
    """What the program wrote. Nothing that it started is left. Raises TimeLimitExceeded, GradingError."""
    with tempfile.TemporaryDirectory(prefix="octavo-sandbox-", ignore_cleanup_errors=True) as folder:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_ENVIRONMENT if name != "rlimits" else {**_ENVIRONMENT, "HOME": folder, "TMPDIR": folder},
                start_new_session=True,
            )
        except OSError as error:
            raise GradingError(f"the sandbox ({name}) cannot be started: {error}") from error
        try:
            with suppress(BrokenPipeError):
                out, err = process.communicate(message, timeout=seconds)
                return out[:_MAX_VERDICT_BYTES], err[:_MAX_VERDICT_BYTES]
            return b"", b""
        except subprocess.TimeoutExpired as error:
            raise TimeLimitExceeded from error
        finally:
            # Ending the first process of a namespace ends all in it; bubblewrap cannot if its user differs.
            processes.end(process, descendants=name != "namespaces")


def _command(name: IsolationName, limits: SandboxLimits) -> list[str]:
    python = [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", "-c", _PROGRAM.format(_import_folder())]
    if name != "bubblewrap":
        return python
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--as-pid-1", "--dev", "/dev"]
    if os.getuid() == 0:
        # Without a user namespace, so that the program can become another user, whose processes are counted.
        command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        for parent in sorted({str(parent) for path in _visible() for parent in Path(path).parents} - {"/"}):
            command += ["--perms", "755", "--dir", parent]  # bubblewrap's own would be root's alone
    else:
        command += ["--unshare-all"]
    command += ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--chmod", "1777", "/tmp", "--chdir", "/tmp"]
    for path in _visible():
        command += ["--ro-bind-try", path, path]
    return [*command, "--remount-ro", "/", "--", *python]


def _import_folder() -> str:
    return str(_PACKAGE.parent)


def _visible() -> list[str]:
    """The system's libraries, Python's own, and this package; no path inside another one."""
    wanted = [*_SYSTEM, os.path.realpath(sys.base_prefix), str(_PACKAGE)]
    return [path for path in wanted if not any(path.startswith(other + "/") for other in wanted)]


def _processes_of_user() -> int:
    """Processes and threads that this user has now: where it has no user of its own, the limit counts them too."""
    import psutil

    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids: Any = process.info["uids"]
        if uids is not None and uids.real == os.getuid():
            count += process.info["num_threads"] or 1
    return count


def _frame(message: Any) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(8, "big") + data
