"""How training is watched, and its best weights chosen: accuracy on problems set apart.

They are the tasks' validation problems: held-out ones are for the closing table alone, and choosing weights by them
would flatter it.
"""

from pydantic import Field

from octavo import rundir
from octavo.config import Config
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import Completer, CompletionRequest, SamplingParams
from octavo.text.tokenizer import Tokenizer
from octavo.train.types import HeldOut
from octavo.world import derive_seed


class ValidationConfig(Config):
    """What is measured every `loop.evaluate_every_steps`."""

    problems: int = Field(default=128, gt=0)
    samples: int = Field(default=1, gt=0)
    """Completions of each problem."""
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(gt=0)
    """Longest completion, tokens."""


def validation(
    config: ValidationConfig,
    mixture: TaskMixture,
    completer: Completer,
    tokenizer: Tokenizer,
    seed: int,
    asking: AskingConfig = PLAINLY,
) -> HeldOut:
    """Score = share of right answers, of those that could be graded; the same problems and draws at every call."""
    problems = [mixture.validation_problem(seed, index) for index in range(config.problems)]
    seed = derive_seed(seed, "validation")
    requests = [
        CompletionRequest(
            prompt_ids=asking.prompt(tokenizer, problem),
            params=SamplingParams(
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=derive_seed(seed, index),
            ),
            samples=config.samples,
        )
        for index, problem in enumerate(problems)
    ]

    def score() -> float:
        grades = mixture.grade_all(
            [
                (problem, asking.answer(completion.text))
                for problem, completions in zip(problems, completer.complete(requests), strict=True)
                for completion in completions
            ]
        )
        scored = [grade.correct for grade in grades if grade.scored]
        return sum(scored) / len(scored) if scored else 0.0

    return HeldOut(rundir.VALIDATION_ACCURACY, score)
