"""A world of problems that a tiny model can learn by reinforcement: answer with an even token."""

import torch

from octavo.tasks.types import Completion, CompletionRequest, Grade, GradeStatus, Problem, Rollout
from octavo.train.progress import Silent
from octavo.train.rollout_config import RolloutConfig
from octavo.train.rollouts import RolloutStream
from octavo.world import World, derive_seed

END = 0


class NaiveCompleter:
    """Draws token by token with full forwards; its random numbers depend on the request and the sample alone."""

    def __init__(self, model):
        self.model = model
        self.requests: list[CompletionRequest] = []

    @torch.no_grad()
    def complete(self, requests):
        self.requests += requests
        self.model.eval()
        return [[self._draw(request, sample) for sample in range(request.samples)] for request in requests]

    def _draw(self, request, sample):
        generator = torch.Generator().manual_seed(derive_seed(request.params.seed, sample))
        ids, logprobs = list(request.prompt_ids), []
        while len(logprobs) < request.params.max_tokens:
            hidden_BTD = self.model(torch.tensor([ids]), torch.arange(len(ids))[None])
            logprobs_V = self.model.logits(hidden_BTD[0, -1]).log_softmax(-1)
            ids.append(int(torch.multinomial(logprobs_V.exp(), 1, generator=generator)))
            logprobs.append(float(logprobs_V[ids[-1]]))
            if ids[-1] == END:
                break
        drawn = tuple(ids[len(request.prompt_ids) :])
        reason = "stop" if drawn[-1] == END else "length"
        return Completion(request.prompt_ids, drawn, tuple(logprobs), " ".join(map(str, drawn)), reason)


class EvenProblems:
    def problem(self, split, seed, index):
        return Problem(id=f"{split}-{seed}-{index}", task="even", question=str(index), answer="even")


def encode(problem):
    return [1 + int(problem.question) % 3, 5]


def score(problem, completion):
    """1 for an even first token; the token 23 makes the verifier fail."""
    if 23 in completion.ids:
        return Rollout(problem, completion, Grade(GradeStatus.ERROR, detail="23"), {"accuracy": 0.0})
    right = float(completion.ids[0] % 2 == 0)
    return Rollout(problem, completion, Grade(GradeStatus.OK, right), {"accuracy": right})


def rollout_config(**changes):
    values = {
        "prompts_per_rollout": 3,
        "samples_per_prompt": 4,
        "max_completion_tokens": 4,
        "micro_batch_tokens": 20,
    }
    return RolloutConfig(**(values | changes))


def rollout_stream(stage, config, model=None, score=score, observer=None, world=None, kind="dapo", completer=None):
    return RolloutStream(
        EvenProblems(),
        completer or NaiveCompleter(model),
        lambda completed: [score(problem, completion) for problem, completion in completed],
        encode,
        config,
        kind,
        world or World.single(),
        stage,
        seed=0,
        observer=observer or Silent(),
    )
