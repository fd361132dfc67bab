"""Kind `self_test`."""

from dataclasses import asdict
from typing import ClassVar, Literal

from pydantic import Field

from octavo.stages.cost import Cost
from octavo.stages.stage import Stage, Workshop
from octavo.storage import write_json
from octavo.tasks.self_test import SelfTestReport, require_sound, self_test
from octavo.tasks.task import Task
from octavo.tasks.types import Problem
from octavo.tasks.verified import VerifiedTask


class SelfTestStage(Stage):
    """Try the verifiers out before anything is trained on what they say; one that can be fooled stops the run."""

    kind: Literal["self_test"]
    problems: int = Field(default=32, ge=2)
    """Questions of each task that are tried."""
    uses: ClassVar = ("tasks",)

    def run(self, workshop: Workshop) -> Cost:
        """Writes self_test.json. Raises GradingError with the example that broke a verifier."""
        reports = []
        for task in workshop.mixture().tasks:
            report = try_out(task, self.problems, workshop.seed)
            record = dict(task.record()) if isinstance(task, VerifiedTask) else {}
            reports.append({**asdict(report), "verifier": record})
            write_json(workshop.folder.self_test, reports)
            require_sound(report)
            tried = sum(probe.tried for probe in report.probes)
            workshop.display.note(f"  the verifier of {task.name} stood {tried} tries on {report.problems} questions")
        return Cost()


def try_out(task: Task, problems: int, seed: int) -> SelfTestReport:
    """The self-test of one task on so many different train questions (fewer if it has no more)."""
    drawn: dict[str, Problem] = {}
    for index in range(4 * problems):
        problem = task.problem("train", seed, index)
        drawn.setdefault(problem.question, problem)
        if len(drawn) == problems:
            break
    return self_test(task, list(drawn.values()))
