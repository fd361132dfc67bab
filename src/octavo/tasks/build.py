"""From configs to tasks."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from octavo.tasks.gym import ReasoningGymConfig, ReasoningGymTask
from octavo.tasks.jsonl import JsonlTask, JsonlTaskConfig
from octavo.tasks.task import Task, TaskMixture

TaskConfig = Annotated[ReasoningGymConfig | JsonlTaskConfig, Field(discriminator="kind")]
"""Any task; `kind` says which."""


def build_task(config: ReasoningGymConfig | JsonlTaskConfig) -> Task:
    """Build one task. Raises ConfigError (unknown dataset or parameter) or DataError (unreadable file)."""
    match config:
        case ReasoningGymConfig():
            return ReasoningGymTask(config)
        case JsonlTaskConfig():
            return JsonlTask(config)


def build_mixture(configs: Sequence[ReasoningGymConfig | JsonlTaskConfig]) -> TaskMixture:
    """Build tasks and mix them by their weights."""
    return TaskMixture([build_task(config) for config in configs], [config.weight for config in configs])
