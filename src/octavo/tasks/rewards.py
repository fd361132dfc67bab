"""From a completion to a graded, rewarded rollout: accuracy, format, language consistency (DeepSeek-R1, rules only)."""

from collections.abc import Sequence

from pydantic import Field

from octavo.config import Config
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.language import language_share
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.types import Completion, Grade, Problem, Rollout
from octavo.text.template import parse_reply


class RewardConfig(Config):
    """Weights of the parts of a reward; each part lies between 0 and its weight."""

    accuracy: float = Field(default=1.0, ge=0)
    """For a full score of the answer; partial scores of a verifier earn nothing."""
    format: float = Field(default=0.1, ge=0)
    """For a finished, well-formed reply."""
    language: float = Field(default=0.1, ge=0)
    """Times the share of the reasoning's words that are of the problem's language."""


def score_rollouts(
    task: Task | TaskMixture,
    completed: Sequence[tuple[Problem, Completion]],
    config: RewardConfig,
    asking: AskingConfig = PLAINLY,
) -> list[Rollout]:
    """Grade completions, at once where the verifier can, and reward them.

    Only what `asking` reads as the answer is graded, so that one that merely occurs in the text earns nothing.
    Where the verifier failed (`grade.scored` is False) the rewards mean nothing: the trainer masks the rollout. Empty
    reasoning and unfinished replies get nothing for language, as they would else be the safest way to be consistent.
    """
    grades = task.grade_all([(problem, asking.answer(completion.text)) for problem, completion in completed])
    return [
        Rollout(problem, completion, grade, _rewards(problem, completion, grade, config))
        for (problem, completion), grade in zip(completed, grades, strict=True)
    ]


def _rewards(problem: Problem, completion: Completion, grade: Grade, config: RewardConfig) -> dict[str, float]:
    reply = parse_reply(completion.text)
    finished = completion.finish_reason == "stop"
    reasoned = finished and bool(reply.reasoning and reply.reasoning.strip())
    share = language_share(reply.reasoning or "", problem.language, quoted=problem.question) if reasoned else 0.0
    return {
        "accuracy": config.accuracy * grade.correct,
        "format": config.format * (finished and reply.well_formed),
        "language": config.language * share,
    }
