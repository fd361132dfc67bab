"""From configs to tasks."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.verifiers.pool import WorkerPool

TaskConfig = Annotated[ReasoningGymConfig | JsonlTaskConfig, Field(discriminator="kind")]
"""Any task; `kind` says which."""


def build_task(config: ReasoningGymConfig | JsonlTaskConfig, pool: WorkerPool | None = None) -> Task:
    """Build one task. `pool` is where verifiers of foreign code run; by default each task has its own.

    Raises ConfigError (unknown dataset or parameter), DataError (unreadable file) or GradingError (unusable verifier).
    """
    match config:
        case ReasoningGymConfig():
            return ReasoningGymTask(config)
        case JsonlTaskConfig():
            return JsonlTask(config, pool)


def build_mixture(configs: Sequence[ReasoningGymConfig | JsonlTaskConfig]) -> TaskMixture:
    """Build tasks and mix them by their weights. They share their worker processes."""
    pool = WorkerPool()
    return TaskMixture([build_task(config, pool) for config in configs], [config.weight for config in configs])
