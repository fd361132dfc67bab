"""From configs to tasks."""

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig
from octavo.tasks.questions import QuestionsTask, QuestionsTaskConfig
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.verifiers.pool import WorkerPool

TaskConfig = Annotated[ReasoningGymConfig | JsonlTaskConfig | QuestionsTaskConfig, Field(discriminator="kind")]
"""Any task; `kind` says which."""


def build_task(config: TaskConfig, pool: WorkerPool | None = None) -> Task:
    """Build one task. `pool` is where verifiers of foreign code run; by default each task has its own.

    Raises ConfigError (unknown dataset or parameter), DataError (unreadable file) or GradingError (unusable verifier).
    """
    match config:
        case ReasoningGymConfig():
            return ReasoningGymTask(config)
        case JsonlTaskConfig():
            return JsonlTask(config, pool)
        case QuestionsTaskConfig():
            return QuestionsTask(config, pool)


def build_mixture(configs: Sequence[TaskConfig], tell: Callable[[str], None] | None = None) -> TaskMixture:
    """Build tasks and mix them by their weights. They share their worker processes. `tell`: see TaskMixture."""
    pool = WorkerPool()
    return TaskMixture([build_task(config, pool) for config in configs], [config.weight for config in configs], tell)
