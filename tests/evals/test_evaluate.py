import pytest

from octavo.errors import GradingError
from octavo.evals.evaluate import Evaluation, EvaluationConfig, evaluate, guess_baseline, held_out_problems
from octavo.tasks.build import build_mixture
from octavo.tasks.gym import ReasoningGymConfig
from octavo.tasks.task import Task, TaskMixture
from octavo.tasks.types import Completion, Problem
from octavo.text.messages import Message
from octavo.text.template import encode_prompt, format_reply
from octavo.text.tokenizer import Tokenizer


class Echo(Task):
    """Question "i" has the answer "i % 4" on train, "i % 7" held out; the verifier breaks on "break"."""

    def __init__(self, name="echo", held_out=1000):
        super().__init__(name, grading_seconds=1.0)
        self._held_out = held_out

    def problem(self, split, seed, index):
        number = index % self._held_out if split == "held_out" else index
        answer = str(number % 7) if split == "held_out" else str([3, 1, 2, 3][index % 4])
        return Problem(id=f"{self.name}/{split}/{seed}/{index}", task=self.name, question=str(number), answer=answer)

    def score(self, problem, answer):
        if answer == "break":
            raise ValueError("cannot read")
        return float(answer == problem.answer)


class Scripted:
    """A completer that replies from a table: sample s of every request gives `replies[s](question)`."""

    def __init__(self, tokenizer, replies):
        self.tokenizer, self.replies, self.calls = tokenizer, replies, []

    def complete(self, requests):
        self.calls.append(list(requests))
        return [[self._completion(request, reply) for reply in self.replies] for request in requests]

    def _completion(self, request, reply):
        question = self.tokenizer.decode(request.prompt_ids).split("<|user|>")[-1].split("<|assistant|>")[0]
        text, tokens, finish = reply(int(question))
        return Completion(request.prompt_ids, (1,) * tokens, (0.0,) * tokens, text, finish)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["0 1 2 3 4 5 6 7 8 9 words to learn from"] * 4, 300)


def right(number):
    return format_reply("Thus", str(number % 7)), 10, "stop"


def wrong(number):
    return format_reply("Thus", "9"), 10, "stop"


def unfinished(number):
    return "<think>Thus", 40, "length"


def broken(number):
    return format_reply("Thus", "break"), 20, "stop"


def measure(tokenizer, replies, tasks=None, problems=20):
    completer = Scripted(tokenizer, replies)
    config = EvaluationConfig(problems=problems, samples=len(replies), temperature=0.6, max_tokens=40, seed=5)
    return evaluate(completer, tokenizer, tasks or TaskMixture([Echo()]), config), completer


def test_figures_worked_by_hand(tokenizer):
    evaluation, _ = measure(tokenizer, [wrong, right, right, unfinished])
    scores = evaluation.overall
    assert (scores.problems, scores.samples) == (20, 4)
    assert scores.pass_at_1 == 0.5
    assert scores.low < 0.5 < scores.high
    assert scores.pass_at_k == 1.0
    assert scores.maj_at_k == 1.0
    assert scores.mean_completion_tokens == (10 + 10 + 10 + 40) / 4
    assert scores.finished_share == 0.75
    assert (scores.failed_gradings, scores.ungraded_problems) == (0, 0)
    record = evaluation.records[3]
    assert (record.question, record.gold) == ("3", "3")
    assert record.answers == ("9", "3", "3", None)
    assert record.correct == (False, True, True, False)
    assert record.majority == "3"


def test_a_tie_goes_to_the_first_answer(tokenizer):
    assert measure(tokenizer, [wrong, right])[0].overall.maj_at_k == 0.0
    assert measure(tokenizer, [right, wrong])[0].overall.maj_at_k == 1.0
    assert measure(tokenizer, [unfinished, right])[0].overall.maj_at_k == 1.0


def test_failed_gradings_are_counted_and_left_out(tokenizer):
    evaluation, _ = measure(tokenizer, [right, broken, wrong, right])
    scores = evaluation.overall
    assert scores.pass_at_1 == pytest.approx(2 / 3)
    assert scores.failed_gradings == 20
    record = evaluation.records[0]
    assert record.correct == (True, None, False, True)
    assert record.scores == (1.0, None, 0.0, 1.0)
    assert record.failures == ("error: echo: ValueError: cannot read",)


def test_a_problem_without_any_grade_is_in_no_figure(tokenizer):
    evaluation, _ = measure(tokenizer, [lambda number: broken(number) if number % 2 else right(number)])
    scores = evaluation.overall
    assert (scores.problems, scores.ungraded_problems, scores.pass_at_1, scores.maj_at_k) == (10, 10, 1.0, 1.0)


def test_a_verifier_that_never_works_is_an_error(tokenizer):
    with pytest.raises(GradingError, match="nothing could be graded; first failure: error: echo: ValueError"):
        measure(tokenizer, [broken])


def test_one_request_a_problem_in_one_call(tokenizer):
    _, completer = measure(tokenizer, [right] * 3)
    (requests,) = completer.calls
    assert len(requests) == 20
    assert {request.samples for request in requests} == {3}
    assert list(requests[4].prompt_ids) == encode_prompt(tokenizer, [Message("user", "4")])
    params = requests[0].params
    assert (params.temperature, params.top_p, params.max_tokens) == (0.6, 0.95, 40)
    assert len({request.params.seed for request in requests}) == 20  # Else all problems would draw the same numbers.


def test_rows_by_task(tokenizer):
    tasks = TaskMixture([Echo("first"), Echo("second")])
    evaluation, _ = measure(tokenizer, [right], tasks, problems=30)
    assert {name: scores.problems for name, scores in evaluation.tasks.items()} == {"first": 15, "second": 15}
    assert evaluation.tasks["first"].pass_at_1 == 1.0


def test_no_question_is_asked_twice(tokenizer):
    evaluation, _ = measure(tokenizer, [right], TaskMixture([Echo(held_out=8)]), problems=20)
    assert evaluation.overall.problems == 8


def test_an_evaluation_survives_a_file(tokenizer):
    evaluation, _ = measure(tokenizer, [right, unfinished, broken])
    assert Evaluation.parse(evaluation.dump()) == evaluation


def test_guessing_knows_training_answers_only():
    """The commonest training answer is 3; held out, 3 is right for one number in seven."""
    guess = guess_baseline(TaskMixture([Echo()]), EvaluationConfig(problems=70, samples=8))
    assert {record.answers for record in guess.records} == {("3",)}
    assert guess.overall.pass_at_1 == pytest.approx(1 / 7)
    assert guess.overall.samples == 1
    assert guess.overall.mean_completion_tokens is None


def test_held_out_problems_are_the_same_for_every_model():
    configs = [ReasoningGymConfig(name="products", params={"max_digits": 2}), ReasoningGymConfig(name="gcd")]
    config = EvaluationConfig(problems=60)
    first, second = (held_out_problems(build_mixture(configs), config) for _ in range(2))
    assert first == second
    assert len({problem.question for problem in first}) == 60
    other = held_out_problems(build_mixture(configs), EvaluationConfig(problems=60, seed=1))
    assert [problem.question for problem in other] != [problem.question for problem in first]
