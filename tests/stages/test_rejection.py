import pytest

from octavo.stages.rejection import RejectionConfig, chunks, draw, select
from octavo.tasks.asking import AskingConfig
from octavo.tasks.build import build_mixture
from octavo.tasks.gym import ReasoningGymConfig
from octavo.tasks.types import ChatReply, ChatRequest, Problem
from octavo.text.template import format_reply, parse_reply

PROBLEM = Problem(id="1", task="t", question="What is 2 + 3?", answer="5")
CONFIG = RejectionConfig(problems=10, samples=4, keep=2, max_tokens=64, problems_per_chunk=4)


def completion(text: str, tokens: int, finish_reason="stop") -> ChatReply:
    return ChatReply(text, finish_reason, tokens)


def test_the_shortest_different_ones_are_kept():
    short, middle, long = (completion(format_reply(f"the sum is {n}", "5"), n) for n in (5, 6, 7))
    assert select(PROBLEM, [long, short, middle, short], CONFIG) == [short, middle]


@pytest.mark.parametrize(
    "dropped",
    [
        completion("<think>the sum is five</think><answer>5", 4),
        completion(format_reply("the sum is five", "5"), 4, finish_reason="length"),
        completion(format_reply(" ", "5"), 4),
        completion(format_reply("isso resulta numa soma verdadeira", "5"), 4),
        completion("so: " + format_reply("the sum is five", "5"), 4),
    ],
    ids=["unclosed", "cut off", "no reasoning", "another language", "text outside"],
)
def test_what_is_not_readable_is_dropped(dropped):
    assert select(PROBLEM, [dropped], CONFIG) == []


def test_models_without_tags_reason_in_the_open():
    asking = AskingConfig(reading="last_number")
    plain, foreign = completion("two and three make 5", 6), completion("dois mais três resulta em 5", 6)
    assert select(PROBLEM, [plain, foreign], CONFIG, asking) == [plain]
    assert select(PROBLEM, [plain], CONFIG) == []


class Solver:
    """Knows the gold answers: sample 0 is right, 1 right in other words, 2 wrong, 3 cut off."""

    def __init__(self, mixture, seed: int):
        self.mixture, self.seed = mixture, seed
        self.calls: list[list[int]] = []

    def answer(self, requests: list[ChatRequest]) -> list[list[ChatReply]]:
        self.calls.append([request.params.seed for request in requests])
        start = 4 * (len(self.calls) - 1)
        problems = [self.mixture.problem("train", self.seed, start + i) for i in range(len(requests))]
        return [
            [
                completion(format_reply("it is so", problem.answer), 9),
                completion(format_reply("so it is then", problem.answer), 8),
                completion(format_reply("it is so", "banana"), 3),
                completion(format_reply("it is", problem.answer), 2, "length"),
            ]
            for problem in problems
        ]


def test_draw_counts_and_keeps():
    mixture = build_mixture([ReasoningGymConfig(name="gcd")])
    solver = Solver(mixture, seed=3)
    drawn = list(draw(CONFIG, mixture, solver, seed=3))
    assert [chunk.number for chunk in drawn] == [0, 1, 2] == list(range(chunks(CONFIG)))
    assert [chunk.completions for chunk in drawn] == [16, 16, 8]
    assert [chunk.correct for chunk in drawn] == [12, 12, 6]  # the one that was cut off is right, but not kept
    assert [len(chunk.rows) for chunk in drawn] == [8, 8, 4]
    first, second = drawn[0].rows[:2]
    problem = mixture.problem("train", 3, 0)
    assert first["messages"][0] == {"role": "user", "content": problem.question}
    replies = [parse_reply(row["messages"][1]["content"]) for row in (first, second)]
    assert [reply.reasoning for reply in replies] == ["so it is then", "it is so"]
    assert {reply.answer for reply in replies} == {problem.answer}
    seeds = [seed for call in solver.calls for seed in call]
    assert len(set(seeds)) == 10


def test_draw_goes_on_with_the_same_requests():
    mixture = build_mixture([ReasoningGymConfig(name="gcd")])
    whole = Solver(mixture, seed=3)
    all_chunks = list(draw(CONFIG, mixture, whole, seed=3))
    rest = Solver(mixture, seed=3)
    rest.calls.append([])  # as if the first chunk had been drawn before
    assert list(draw(CONFIG, mixture, rest, seed=3, first=1)) == all_chunks[1:]
    assert rest.calls[1:] == whole.calls[1:]
