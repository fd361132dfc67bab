"""A few worker processes that grade answers with verifiers which may hang, crash or grow.

They are started when first needed and stay. One that does not answer in time, ends, grows over its memory or leaves
something running is ended with all that it started, and replaced when next needed; the other jobs are not touched.
"""

import json
import os
import pickle
import queue
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from octavo.errors import GradingError
from octavo.tasks import processes
from octavo.tasks.grading import timeout
from octavo.tasks.types import Grade, GradeStatus, Problem
from octavo.tasks.verifiers.worker import write_frame

LOADING_SECONDS = 120.0
"""For a worker to start and load a verifier: libraries may be large, machines busy."""
# A worker stops a job by itself, and stays; one that is stuck in C code cannot, and is ended so much later.
_GRACE_SECONDS = 1.0
_MAX_REPLY_BYTES = 2**20


class WorkerPool:
    """Grades many answers at once, in order. `close` it, or use `with`; else it ends with the last use of it.

    `verifier` is a config as JSON: workers build it by themselves. All failures are grades: ERROR or TIMEOUT.
    """

    def __init__(self, workers: int | None = None, memory_bytes: int = 4 * 2**30) -> None:
        count = workers or os.cpu_count() or 1
        self._workers = [_Worker(memory_bytes) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="octavo-grading")
        self._finalizer = weakref.finalize(self, _end_all, self._workers, self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._finalizer()

    def load(self, verifier: str) -> None:
        """Have one worker load a verifier now. Raises GradingError if it cannot be loaded."""
        worker = self._idle.get()
        try:
            grade = worker.load(verifier)
        finally:
            self._idle.put(worker)
        if grade.status is not GradeStatus.OK:
            raise GradingError(f"the verifier cannot be used: {grade.detail}")

    def grade_all(self, verifier: str, jobs: Sequence[tuple[Problem, str]], seconds: float) -> list[Grade]:
        """One grade for each (problem, answer), in order; `seconds` limit each of them."""
        return list(self._threads.map(lambda job: self._grade(verifier, job[0], job[1], seconds), jobs))

    def _grade(self, verifier: str, problem: Problem, answer: str, seconds: float) -> Grade:
        worker = self._idle.get()
        try:
            loaded = worker.load(verifier)
            return worker.grade(verifier, problem, answer, seconds) if loaded.status is GradeStatus.OK else loaded
        finally:
            self._idle.put(worker)


class _Worker:
    """One process, or none at the moment."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: set[str] = set()
        self._jobs = 0

    def load(self, verifier: str) -> Grade:
        if self._process is not None and self._process.poll() is not None:
            self.end()  # it ended while idle, which is no fault of the next job's
        if self._process is not None and verifier in self._loaded:
            return Grade(GradeStatus.OK, score=1.0)
        grade = self._ask({"do": "load", "verifier": verifier}, LOADING_SECONDS)
        if grade.status is GradeStatus.OK and self._process is not None:
            self._loaded.add(verifier)
        return grade

    def grade(self, verifier: str, problem: Problem, answer: str, seconds: float) -> Grade:
        job = {"do": "grade", "verifier": verifier, "problem": problem, "answer": answer, "seconds": seconds}
        return self._ask(job, seconds)

    def end(self) -> None:
        if self._process is not None:
            processes.end(self._process)
        self._process = None
        self._loaded = set()

    def _ask(self, job: dict[str, Any], seconds: float) -> Grade:
        self._jobs += 1
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            write_frame(process.stdin.fileno(), pickle.dumps({**job, "id": self._jobs}))
            reply = self._reply(process, time.monotonic() + seconds + _GRACE_SECONDS)
        except TimeoutError:
            self.end()
            return timeout(seconds)
        except (OSError, ValueError, KeyError) as error:
            return Grade(GradeStatus.ERROR, detail=self._obituary(error))
        if reply["left_running"]:
            self.end()
        return Grade(GradeStatus(reply["status"]), score=reply["score"], detail=reply["detail"])

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "octavo.tasks.verifiers.worker", str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            bufsize=0,
            start_new_session=True,
        )
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        """Raises TimeoutError; EOFError or ValueError for what is no reply."""
        assert process.stdout is not None
        descriptor, data, wanted = process.stdout.fileno(), b"", 8
        while len(data) < wanted:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise TimeoutError
            part = os.read(descriptor, wanted - len(data))
            if not part:
                raise BrokenPipeError("it closed its pipes")
            data += part
            if len(data) == wanted == 8:
                wanted += int.from_bytes(data, "big")
                if wanted > _MAX_REPLY_BYTES:
                    raise ValueError("it wrote what is no reply")
        reply = json.loads(data[8:])
        if reply["id"] != self._jobs:
            raise ValueError("it wrote what is no reply")
        return reply

    def _obituary(self, error: Exception) -> str:
        """How the process ended, which is then gone."""
        process = self._process
        if process is None:
            return f"no worker process can be started: {error}"
        try:
            how = processes.how_it_ended(process.wait(_GRACE_SECONDS))
        except subprocess.TimeoutExpired:
            how = str(error)
        self.end()
        return f"the verifier's process: {how}"


def _end_all(workers: Sequence[_Worker], threads: ThreadPoolExecutor) -> None:
    threads.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.end()
