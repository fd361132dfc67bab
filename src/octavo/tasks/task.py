"""A task: problems that can be addressed by number, and a verifier that grades answers to them."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from octavo.errors import ConfigError
from octavo.tasks import answers
from octavo.tasks.grading import grade_within
from octavo.tasks.types import Grade, GradeStatus, Problem, Split
from octavo.world import derive_seed

# Period of the order in which a mixture deals its tasks; weights are kept to one part in this.
_MIXTURE_SLOTS = 1000


class Task(ABC):
    """Problems with a verifier. `problem` is a pure function of its arguments; train and held-out never overlap."""

    def __init__(self, name: str, grading_seconds: float) -> None:
        self.name = name
        self._grading_seconds = grading_seconds

    @abstractmethod
    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Return problem number `index` (from 0, unbounded) of stream `seed`; OctavoError if there is none."""

    def validation_problem(self, seed: int, index: int) -> Problem:
        """A problem to choose weights by, never a held-out one. Here: of the train split, under a seed of its own."""
        return self.problem("train", derive_seed(seed, "validation"), index)

    @abstractmethod
    def score(self, problem: Problem, answer: str) -> float:
        """Score a non-empty answer in [0, 1]. May raise or hang: `grade` guards it."""

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Grade an answer; never raises. A verifier that fails or hangs gives ERROR or TIMEOUT, never a score."""
        return self.grade_all([(problem, answer)])[0]

    def grade_all(self, attempts: Sequence[tuple[Problem, str | None]]) -> list[Grade]:
        """Grade many answers, in order: as `grade`, and at once where the verifier runs in processes of its own."""
        return [self._grade_here(problem, answers.clean(answer or "")) for problem, answer in attempts]

    def together(self, golds: Sequence[str]) -> list[str]:
        """Ways to give several answers at once, none of which may score (see `self_test`)."""
        return answers.several(golds)

    def _grade_here(self, problem: Problem, cleaned: str) -> Grade:
        if not cleaned:
            return Grade(GradeStatus.NO_ANSWER)
        return self._signed(grade_within(self._grading_seconds, self.score, problem, cleaned))

    def _signed(self, grade: Grade) -> Grade:
        """With the task's name before what went wrong."""
        return dataclasses.replace(grade, detail=f"{self.name}: {grade.detail}") if grade.detail else grade


class TaskMixture:
    """Tasks dealt in fixed proportions, evenly: any run of consecutive indices holds about its share of each.

    Problem `index` of the mixture is the next unused problem of the task whose turn it is, so that no task skips or
    repeats problems.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        weights: Sequence[float] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`tell` is given a sentence when an answer cannot be graded, once a task."""
        weights = [1.0] * len(tasks) if weights is None else list(weights)
        if not tasks or len(tasks) != len(weights):
            raise ConfigError(
                f"tasks: got {len(tasks)} tasks and {len(weights)} weights, expected as many, at least one"
            )
        if any(not (weight > 0 and math.isfinite(weight)) for weight in weights):
            raise ConfigError(f"tasks: got weights {weights}, expected positive numbers")
        self.tasks = tuple(tasks)
        self._tell, self._told = tell, set[str]()
        self._by_name = {task.name: task for task in tasks}
        if len(self._by_name) < len(tasks):
            names = [task.name for task in tasks]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"tasks: two tasks are named {twice!r}; give one of them another `label`")
        self._slots = _deal(weights, _MIXTURE_SLOTS)
        self._per_period = [sum(task == position for task, _ in self._slots) for position in range(len(tasks))]
        if 0 in self._per_period:
            scarce = tasks[self._per_period.index(0)].name
            raise ConfigError(f"tasks: the weight of {scarce!r} is under 1/{_MIXTURE_SLOTS} of the sum; raise it")

    def problem(self, split: Split, seed: int, index: int) -> Problem:
        """Return problem number `index` of the mixture."""
        task, number = self._deal(index)
        return task.problem(split, seed, number)

    def validation_problem(self, seed: int, index: int) -> Problem:
        """Return validation problem number `index` of the mixture."""
        task, number = self._deal(index)
        return task.validation_problem(seed, number)

    def task_of(self, problem: Problem) -> Task:
        """Return the task that posed `problem`. Raises KeyError for a problem of another mixture."""
        return self._by_name[problem.task]

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Grade with the task that posed the problem."""
        return self._watched(problem.task, [self.task_of(problem).grade(problem, answer)])[0]

    def grade_all(self, attempts: Sequence[tuple[Problem, str | None]]) -> list[Grade]:
        """Grade each answer with the task that posed its problem; in order."""
        graded = {}
        for task in self.tasks:
            places = [place for place, (problem, _) in enumerate(attempts) if problem.task == task.name]
            grades = task.grade_all([attempts[place] for place in places])
            graded.update(zip(places, self._watched(task.name, grades), strict=True))
        return [graded[place] for place in range(len(attempts))]

    def _watched(self, task: str, grades: list[Grade]) -> list[Grade]:
        """The grades as they are; a verifier's first failure is told."""
        failed = next((grade for grade in grades if not grade.scored), None)
        if failed is not None and self._tell is not None and task not in self._told:
            self._told.add(task)
            self._tell(
                f"warning: an answer could not be graded ({failed.detail}). Such answers count neither as right nor as "
                f"wrong; if there are many, mend the verifier of {task}."
            )
        return grades

    def _deal(self, index: int) -> tuple[Task, int]:
        """Whose turn it is, and which of that task's problems."""
        period, slot = divmod(index, _MIXTURE_SLOTS)
        position, rank = self._slots[slot]
        return self.tasks[position], period * self._per_period[position] + rank


def _deal(weights: Sequence[float], slots: int) -> list[tuple[int, int]]:
    """Smooth weighted round-robin: (task, how many slots that task had before) for each slot."""
    total = sum(weights)
    credit = [0.0] * len(weights)
    dealt = [0] * len(weights)
    order = []
    for _ in range(slots):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        chosen = max(range(len(weights)), key=credit.__getitem__)
        order.append((chosen, dealt[chosen]))
        dealt[chosen] += 1
        credit[chosen] -= total
    return order
