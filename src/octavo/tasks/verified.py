"""A task whose answers are judged by any verifier, in this process or in workers."""

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.tasks import answers
from octavo.tasks.task import Task
from octavo.tasks.types import Grade, GradeStatus, Problem
from octavo.tasks.verifiers.build import VERIFIER, VerifierConfig, build_verifier
from octavo.tasks.verifiers.pool import WorkerPool


class VerifiedTask(Task):
    """`verifier` judges; what is foreign in it runs in worker processes, within `grading_seconds` an answer.

    `pool` may be shared between tasks, and is then closed by who made it. Raises ConfigError, DataError or GradingError
    for a verifier that cannot be built.
    """

    def __init__(
        self, name: str, verifier: VerifierConfig, grading_seconds: float, pool: WorkerPool | None = None
    ) -> None:
        self.verifier = build_verifier(verifier)
        # What limits itself does so first, and says more of what happened.
        super().__init__(name, grading_seconds + self.verifier.limits_itself_seconds)
        self._config_json = VERIFIER.dump_json(verifier).decode()
        self._pool = pool

    def score(self, problem: Problem, answer: str) -> float:
        return self.verifier.score(problem, answer)

    def grade_all(self, attempts: Sequence[tuple[Problem, str | None]]) -> list[Grade]:
        if not self.verifier.foreign:
            return super().grade_all(attempts)
        cleaned = [(problem, answers.clean(answer or "")) for problem, answer in attempts]
        given = [(problem, answer) for problem, answer in cleaned if answer]
        if given and self._pool is None:
            self._pool = WorkerPool()
        graded = iter(self._pool.grade_all(self._config_json, given, self._grading_seconds) if self._pool else ())
        return [self._signed(next(graded)) if answer else Grade(GradeStatus.NO_ANSWER) for _, answer in cleaned]

    def load(self) -> None:
        """Load the verifier now, if it is foreign. Raises GradingError if that fails."""
        if self.verifier.foreign:
            self._pool = self._pool or WorkerPool()
            self._pool.load(self._config_json)

    def together(self, golds: Sequence[str]) -> list[str]:
        return self.verifier.together(golds)

    def record(self) -> Mapping[str, Any]:
        return self.verifier.record()
