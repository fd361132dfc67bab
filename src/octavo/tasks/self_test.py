"""Is a verifier sound? Tried out before any training, on what models find when it is not.

The gold answer must score full. What is no answer must not: nothing at all, the gold answer in a long text, refusals in
several languages, every candidate at once, another question's answer. Reinforcement finds any of these that pays.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from octavo.errors import DataError, GradingError
from octavo.tasks import answers
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.types import Grade, GradeStatus, Problem

ProbeName = Literal["gold", "empty", "padded", "refusal", "every_candidate", "another_gold"]

_OTHERS = 3
# Another question's answer may be near enough to be right (a tolerance, two solutions of one puzzle), so some may pass.
_ANOTHER_GOLD_MAY_PASS = 0.1

_EMPTY = (
    "",
    " \n\t ",
    r"\boxed{}",
    "$$",
    "``````",
    "```\n```",
    "{}",
    "[]",
    "()",
    '""',
    ".",
    "-",
    "?",
    "None",
    "null",
    "nan",
)
_PADDINGS = (
    "The answer is {gold} because of what was said before, although one could also think of it in another way.",
    "{gold} is the answer. I am quite sure of it, having looked at it from several sides, one after the other.",
    "Let me think about this step by step. First I read the question again. Then I consider {gold}. "
    "After that I go through everything once more, from the beginning to the end, and I see no mistake in it.\n" * 3,
)
_REFUSALS = (
    "I cannot answer that.",
    "I don't know.",
    "As a language model, I am not able to help with this request.",
    "Não sei responder a essa pergunta.",
    "Jag kan inte svara på det.",
    "Siwezi kujibu swali hilo.",
    "Je ne peux pas répondre à cette question.",
    "Das kann ich nicht beantworten.",
    "Я не могу ответить на этот вопрос.",
    "لا أستطيع الإجابة على هذا السؤال.",
    "मैं इसका उत्तर नहीं दे सकता।",
    "我无法回答这个问题。",
    "ይህን ጥያቄ መመለስ አልችልም።",
)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An answer that was tried, and how it was graded."""

    problem: Problem
    answer: str
    grade: Grade

    def describe(self) -> str:
        """One line."""
        said = f"scored {self.grade.score:g}" if self.grade.scored else f"{self.grade.status} ({self.grade.detail})"
        return (
            f"question {_shown(self.problem.question)}, gold {_shown(self.problem.answer)}, "
            f"answer {_shown(self.answer)}: {said}"
        )


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What became of one kind of answers. `failed` counts gold answers that did not score full, others that did."""

    name: ProbeName
    tried: int
    failed: int
    unscored: int
    """On which the verifier broke or took too long; such answers would be masked in training."""
    may_fail_share: float
    example: Attempt | None
    """The first failure, else the first unscored one."""

    @property
    def sound(self) -> bool:
        """Whether no more failed than may."""
        return self.failed <= self.may_fail_share * self.tried


@dataclasses.dataclass(frozen=True)
class SelfTestReport:
    """What became of all probes."""

    task: str
    problems: int
    probes: tuple[ProbeResult, ...]

    @property
    def sound(self) -> bool:
        return all(probe.sound for probe in self.probes)


def self_test(task: Task | TaskMixture, problems: Sequence[Problem]) -> SelfTestReport:
    """Try a task's verifier on a sample of its problems (16 to 64 say enough, if they differ).

    Raises DataError if there are fewer than two, since then no question has another one's answer.
    """
    if len(problems) < 2:
        raise DataError(f"a verifier's self-test needs at least 2 questions, got {len(problems)}; add questions")
    makers: dict[ProbeName, Callable[[Problem, Sequence[str]], Iterator[str]]] = {
        "gold": lambda problem, others: iter([problem.answer] if problem.answer else []),
        "empty": _empty,
        "padded": _padded,
        "refusal": _refusals,
        "every_candidate": lambda problem, others: _together(task, problem, others),
        "another_gold": lambda problem, others: iter(others),
    }
    others = [_other_golds(problems, place) for place in range(len(problems))]
    probes = []
    for name, maker in makers.items():
        tries = [
            (problem, answer)
            for problem, golds in zip(problems, others, strict=True)
            for answer in dict.fromkeys(maker(problem, golds))
        ]
        graded = task.grade_all(tries)
        probes.append(_result(name, [Attempt(*attempt, grade) for attempt, grade in zip(tries, graded, strict=True)]))
    name = task.name if isinstance(task, Task) else ", ".join(each.name for each in task.tasks)
    return SelfTestReport(name, len(problems), tuple(probes))


def require_sound(report: SelfTestReport) -> None:
    """Raise GradingError with the example that broke the verifier, unless it is sound."""
    for probe in report.probes:
        if not probe.sound:
            assert probe.example is not None
            raise GradingError(
                f"the verifier of {report.task} is not sound: {_RULES[probe.name]}, but {probe.failed} of "
                f"{probe.tried} {'did not' if probe.name == 'gold' else 'did'}: {probe.example.describe()}; "
                "choose another verifier, or mend the questions"
            )


_RULES: dict[ProbeName, str] = {
    "gold": "the gold answer must score full",
    "empty": "an answer that says nothing must not score full",
    "padded": "the gold answer in a longer text must not score full",
    "refusal": "a refusal must not score full",
    "every_candidate": "every candidate at once must not score full",
    "another_gold": "another question's answer must not score full",
}


def _result(name: ProbeName, attempts: Sequence[Attempt]) -> ProbeResult:
    if name == "gold":
        failures = [attempt for attempt in attempts if not attempt.grade.correct]
    else:
        failures = [attempt for attempt in attempts if attempt.grade.correct]
    broken = [attempt for attempt in attempts if attempt.grade.status in (GradeStatus.ERROR, GradeStatus.TIMEOUT)]
    return ProbeResult(
        name=name,
        tried=len(attempts),
        failed=len(failures),
        unscored=len(broken),
        may_fail_share=_ANOTHER_GOLD_MAY_PASS if name == "another_gold" else 0.0,
        example=next(iter([*failures, *broken]), None),
    )


def _other_golds(problems: Sequence[Problem], place: int) -> list[str]:
    """A few gold answers of the questions that follow, all different from this one's and from each other."""
    own = answers.normalize(problems[place].answer)
    found: dict[str, str] = {}
    for step in range(1, len(problems)):
        following = problems[(place + step) % len(problems)]
        other = following.answer if following.task == problems[place].task else ""
        if other and (key := answers.normalize(other)) != own:
            found.setdefault(key, other)
        if len(found) == _OTHERS:
            break
    return list(found.values())


def _empty(problem: Problem, others: Sequence[str]) -> Iterator[str]:
    own = answers.normalize(problem.answer)
    return (text for text in _EMPTY if answers.normalize(text) != own)


def _padded(problem: Problem, others: Sequence[str]) -> Iterator[str]:
    if problem.answer:
        yield from (padding.format(gold=problem.answer) for padding in _PADDINGS)


def _refusals(problem: Problem, others: Sequence[str]) -> Iterator[str]:
    own = answers.normalize(problem.answer)
    return (text for text in _REFUSALS if answers.normalize(text) != own)


def _together(task: Task | TaskMixture, problem: Problem, others: Sequence[str]) -> Iterator[str]:
    """The gold answer first, last and in the middle of wrong ones, in the ways in which this verifier is fooled."""
    if problem.answer and others:
        judge = task if isinstance(task, Task) else task.task_of(problem)
        middle = [*others[:1], problem.answer, *others[1:]]
        for order in ([problem.answer, *others], middle, [*others, problem.answer]):
            yield from judge.together(order)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")
