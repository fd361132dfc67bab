"""Measure a model on held-out problems: pass@1 with its interval, majority vote, length, share finished, failures.

Several samples a problem at a moderate temperature, as DeepSeek-R1 was measured (arXiv:2501.12948, section 3): greedy
decoding of a reasoning model is unstable.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from octavo.config import Config
from octavo.errors import GradingError
from octavo.evals import statistics
from octavo.tasks import answers
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.task import TaskMixture
from octavo.tasks.types import Completer, Completion, CompletionRequest, Grade, GradeStatus, Problem, SamplingParams
from octavo.text.tokenizer import Tokenizer
from octavo.world import derive_seed

# Problems from which the guesser learns each task's commonest answer.
_GUESSING_PROBLEMS = 1000
# Repeated questions are passed over; a source that has no more of them is given up after so many draws a problem.
_MAX_DRAWS_PER_PROBLEM = 4


class EvaluationConfig(Config):
    """How a model is measured."""

    problems: int = Field(default=512, gt=0)
    """Different held-out problems, over all tasks."""
    samples: int = Field(default=8, gt=0)
    """Completions of each problem."""
    temperature: float = Field(default=0.6, ge=0)
    """Of sampling; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Smallest set of tokens with this probability is sampled from."""
    max_tokens: int = Field(default=256, gt=0)
    """Longest completion, in tokens."""
    seed: int = 0
    """Which held-out problems are drawn, and how completions are sampled."""


class ProblemRecord(Config):
    """One problem and what became of its samples (equal lengths; one entry a sample)."""

    id: str
    task: str
    question: str
    gold: str
    answers: tuple[str | None, ...]
    """None: no answer was given."""
    scores: tuple[float | None, ...]
    """The verifier's score; None: grading failed, and the sample counts nowhere."""
    correct: tuple[bool | None, ...]
    """Full score; None: grading failed."""
    failures: tuple[str, ...] = ()
    """What went wrong in grading, one line each."""
    majority: str | None = None
    """The commonest answer; ties go to the first."""
    majority_correct: bool | None = None
    """None: its grading failed."""
    completion_tokens: tuple[int, ...] = ()
    finished: tuple[bool, ...] = ()
    """Ended by itself, before the limit of tokens."""


class Scores(Config):
    """Figures over a set of problems; samples whose grading failed are left out and counted in `failed_gradings`."""

    problems: int
    """Problems with at least one graded sample."""
    samples: int
    """Samples a problem."""
    pass_at_1: float
    low: float
    high: float
    """Ends of the 95% interval of pass@1, clustered by problem."""
    pass_at_k: float
    """Share of problems with at least one right sample."""
    maj_at_k: float | None
    """Share of problems whose commonest answer is right; k is `samples`. None: no commonest answer could be graded."""
    mean_completion_tokens: float | None
    """None for a guess, which writes nothing."""
    finished_share: float | None
    failed_gradings: int
    """Samples whose verifier raised or took too long."""
    ungraded_problems: int
    """Problems that are missing from all figures, as none of their samples could be graded."""


class Evaluation(Config):
    """What was measured, over all tasks, by task and by problem."""

    config: EvaluationConfig
    overall: Scores
    tasks: dict[str, Scores]
    records: tuple[ProblemRecord, ...]


def evaluate(
    completer: Completer,
    tokenizer: Tokenizer,
    tasks: TaskMixture,
    config: EvaluationConfig,
    asking: AskingConfig = PLAINLY,
) -> Evaluation:
    """Sample completions of held-out problems and grade them.

    All requests go to the completer in one call, one a problem, so that an engine can batch them. Raises GradingError
    if not one sample could be graded.
    """
    problems = held_out_problems(tasks, config)
    requests = [_request(asking.prompt(tokenizer, problem), problem, config) for problem in problems]
    completions = completer.complete(requests)
    records = [
        _record(tasks, problem, drawn, [asking.answer(completion.text) for completion in drawn])
        for problem, drawn in zip(problems, completions, strict=True)
    ]
    return summarize(records, config)


def guess_baseline(tasks: TaskMixture, config: EvaluationConfig) -> Evaluation:
    """What one gets without reading the question: each task's commonest answer, learned from training problems only."""
    guesses = {task.name: _commonest_answer(tasks, task.name, config.seed) for task in tasks.tasks}
    config = config.model_copy(update={"samples": 1})
    problems = held_out_problems(tasks, config)
    records = [_graded(tasks, problem, [guesses[problem.task]]) for problem in problems]
    return summarize(records, config)


def held_out_problems(tasks: TaskMixture, config: EvaluationConfig) -> list[Problem]:
    """The first `config.problems` different held-out questions of the mixture; fewer if it has no more."""
    found: dict[tuple[str, str], Problem] = {}
    for index in range(config.problems * _MAX_DRAWS_PER_PROBLEM):
        problem = tasks.problem("held_out", config.seed, index)
        found.setdefault((problem.task, problem.question), problem)
        if len(found) == config.problems:
            break
    return list(found.values())


def summarize(records: Sequence[ProblemRecord], config: EvaluationConfig) -> Evaluation:
    """Figures over all records and by task. Raises GradingError if not one sample could be graded.

    A task of which none could be graded is missing from `tasks`; `overall.ungraded_problems` counts its problems.
    """
    by_task: dict[str, list[ProblemRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    return Evaluation(
        config=config,
        overall=_scores(records, config),
        tasks={name: _scores(of_task, config) for name, of_task in by_task.items() if any(map(_is_graded, of_task))},
        records=tuple(records),
    )


def _request(prompt_ids: tuple[int, ...], problem: Problem, config: EvaluationConfig) -> CompletionRequest:
    params = SamplingParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=derive_seed(config.seed, "evaluation", problem.id),
    )
    return CompletionRequest(prompt_ids=prompt_ids, params=params, samples=config.samples)


def _record(
    tasks: TaskMixture, problem: Problem, completions: Sequence[Completion], given: Sequence[str | None]
) -> ProblemRecord:
    record = _graded(tasks, problem, given)
    return record.model_copy(
        update={
            "completion_tokens": tuple(len(completion.ids) for completion in completions),
            "finished": tuple(completion.finish_reason == "stop" for completion in completions),
        }
    )


def _graded(tasks: TaskMixture, problem: Problem, given: Sequence[str | None]) -> ProblemRecord:
    grades = [tasks.grade(problem, answer) for answer in given]
    # White space between the tags is no answer, and votes for nothing.
    voted = [
        answers.normalize(a) if a is not None and _has_answer(g) else None for a, g in zip(given, grades, strict=True)
    ]
    winner = statistics.majority(voted)
    return ProblemRecord(
        id=problem.id,
        task=problem.task,
        question=problem.question,
        gold=problem.answer,
        answers=tuple(given),
        scores=tuple(grade.score if grade.scored else None for grade in grades),
        correct=tuple(grade.correct if grade.scored else None for grade in grades),
        failures=tuple(f"{grade.status}: {grade.detail}" for grade in grades if not grade.scored),
        majority=None if winner is None else given[winner],
        majority_correct=False if winner is None else (grades[winner].correct if grades[winner].scored else None),
    )


def _has_answer(grade: Grade) -> bool:
    return grade.status is not GradeStatus.NO_ANSWER


def _is_graded(record: ProblemRecord) -> bool:
    return any(correct is not None for correct in record.correct)


def _scores(records: Sequence[ProblemRecord], config: EvaluationConfig) -> Scores:
    graded = [[correct for correct in record.correct if correct is not None] for record in records]
    counted = [correct for correct in graded if correct]
    if not counted:
        failure = next((failure for record in records for failure in record.failures), "no problem")
        raise GradingError(f"nothing could be graded; first failure: {failure}")
    estimate = statistics.pass_at_1(counted)
    majorities = [record.majority_correct for record in records if record.majority_correct is not None]
    tokens = [count for record in records for count in record.completion_tokens]
    finished = [ended for record in records for ended in record.finished]
    return Scores(
        problems=len(counted),
        samples=config.samples,
        pass_at_1=estimate.value,
        low=estimate.low,
        high=estimate.high,
        pass_at_k=_mean([statistics.pass_at_k(len(c), sum(c), len(c)) for c in counted]),
        maj_at_k=_mean(majorities) if majorities else None,
        mean_completion_tokens=_mean(tokens) if tokens else None,
        finished_share=_mean(finished) if finished else None,
        failed_gradings=sum(len(record.failures) for record in records),
        ungraded_problems=len(records) - len(counted),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _commonest_answer(tasks: TaskMixture, name: str, seed: int) -> str:
    task = next(task for task in tasks.tasks if task.name == name)
    drawn = [task.problem("train", seed, index).answer for index in range(_GUESSING_PROBLEMS)]
    counts = Counter(answers.normalize(answer) for answer in drawn)
    commonest = max(counts, key=counts.__getitem__)
    return next(answer for answer in drawn if answers.normalize(answer) == commonest)
