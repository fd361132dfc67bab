"""The process in which verifiers of foreign code run: reads jobs, writes grades, as `pool` asks.

What a verifier prints goes nowhere (its beginning is kept for the error message). What it leaves running is reported,
so that the process is replaced. A copy of the process that it forks writes nothing.
"""

import json
import os
import pickle
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from octavo.errors import OctavoError
from octavo.tasks.grading import grade_within
from octavo.tasks.processes import adopt_orphans, die_with_parent, limit_memory
from octavo.tasks.types import Grade, GradeStatus
from octavo.tasks.verifiers.build import VERIFIER, build_verifier
from octavo.tasks.verifiers.verifier import Verifier

_MAX_OUTPUT_CHARACTERS = 300
_MAX_DETAIL_CHARACTERS = 1000


class _Beginning(StringIO):
    """Keeps how a text begins, whatever is written behind it."""

    def write(self, text: str, /) -> int:
        super().write(text[: max(0, _MAX_OUTPUT_CHARACTERS - self.tell())])
        return len(text)


def main() -> None:
    """Serve jobs from descriptor 0 until it ends; replies go to descriptor 1."""
    die_with_parent()
    adopt_orphans()
    jobs, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.register_at_fork(after_in_child=lambda: os.closerange(jobs, max(jobs, replies) + 1))
    limit_memory(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own, verifiers = os.getpid(), {}
    while (job := read_frame(jobs)) is not None:
        reply = _serve(verifiers, pickle.loads(job))
        if os.getpid() != own:  # the verifier has forked, and this is the copy
            os._exit(0)
        write_frame(replies, json.dumps({**reply, "left_running": _left_running()}).encode())


def read_frame(descriptor: int) -> bytes | None:
    """What `write_frame` wrote; None at the end."""
    header = _read(descriptor, 8)
    return None if header is None else _read(descriptor, int.from_bytes(header, "big"))


def write_frame(descriptor: int, data: bytes) -> None:
    """Write bytes with their length before them."""
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _serve(verifiers: dict[str, Verifier], job: dict[str, Any]) -> dict[str, Any]:
    """Load a verifier, or grade with one that is loaded."""
    output = _Beginning()
    with redirect_stdout(output), redirect_stderr(output):
        key = job["verifier"]
        if job["do"] == "load":
            reply = _guarded(lambda: _load(verifiers, key))
        else:
            score = verifiers[key].score
            reply = _guarded(lambda: grade_within(job["seconds"], score, job["problem"], job["answer"]))
    detail = reply.detail[:_MAX_DETAIL_CHARACTERS]
    if detail and output.getvalue():
        detail += f" (it printed: {output.getvalue()!r})"
    return {"id": job["id"], "status": reply.status.value, "score": reply.score, "detail": detail}


def _guarded(work: Callable[[], Grade]) -> Grade:
    """Also SystemExit is an answer to this job, and no end of the process."""
    try:
        return work()
    except BaseException as error:
        detail = str(error) if isinstance(error, OctavoError) else f"{type(error).__name__}: {error}"
        return Grade(GradeStatus.ERROR, detail=detail)


def _load(verifiers: dict[str, Verifier], key: str) -> Grade:
    verifier = build_verifier(VERIFIER.validate_json(key))
    verifier.prepare()
    verifiers[key] = verifier
    return Grade(GradeStatus.OK, score=1.0)


def _left_running() -> bool:
    """Whether a thread or a child process outlives its job."""
    if threading.active_count() > 1:
        return True
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
            pass
    except ChildProcessError:
        return False
    return True


def _read(descriptor: int, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = os.read(descriptor, min(count, 2**20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
