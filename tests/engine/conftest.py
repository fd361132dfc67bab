"""A toy model whose next token depends on the whole prefix, read back from its cache, and exactly so (integers)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

VOCABULARY = 23
END = 0


class ToyCache:
    def __init__(self, tokens_BL, lengths_B):
        self.tokens_BL, self.lengths_B = tokens_BL, lengths_B

    @property
    def rows(self):
        return len(self.lengths_B)

    @property
    def max_tokens(self):
        return self.tokens_BL.shape[1]

    def view(self, rows):
        return ToyCache(self.tokens_BL[:rows], self.lengths_B[:rows])

    def copy_row(self, source, source_row, targets):
        length = int(source.lengths_B[source_row])
        for target in targets:
            self.tokens_BL[target, :length] = source.tokens_BL[source_row, :length].clone()
            self.tokens_BL[target, length:] = -1
            self.lengths_B[target] = length

    def move_row(self, source_row, target_row):
        self.copy_row(self, source_row, [target_row])


class ToyModel:
    """Hidden state: a polynomial hash of the prefix, modulo a prime. Logits: a hash of it and the token, in 1/64ths."""

    def __init__(self, max_positions=40):
        self.config = SimpleNamespace(max_positions=max_positions, vocab_size=VOCABULARY)
        self.passes = []

    def new_cache(self, rows, max_tokens):
        return ToyCache(torch.full((rows, max_tokens), -1), torch.zeros(rows, dtype=torch.int64))

    def forward_cached(self, inputs_BT, cache):
        rows, tokens = inputs_BT.shape
        assert rows == cache.rows
        self.passes.append((rows, tokens))
        hidden_BTD = torch.zeros(rows, tokens, 1, dtype=torch.int64)
        for row in range(rows):
            start = int(cache.lengths_B[row])
            cache.tokens_BL[row, start : start + tokens] = inputs_BT[row]
            state = 0
            for index, token in enumerate(cache.tokens_BL[row, : start + tokens].tolist()):
                assert token >= 0, "the engine let the model read a cell that was never written"
                state = (state * 31 + token + 1) % 1_000_003
                if index >= start:
                    hidden_BTD[row, index - start, 0] = state
        cache.lengths_B += tokens
        return hidden_BTD

    def logits(self, hidden_XD):
        mixed = (hidden_XD * 7919 + torch.arange(VOCABULARY) * 104_729 + 17) ** 2 % 65_537
        return (mixed % 256).float() / 64

    def logits_after(self, ids):
        """Logits of the token that follows a prefix, without engine and cache."""
        return self.logits(self.forward_cached(torch.tensor([ids]), self.new_cache(1, len(ids)))[0, -1:])[0]


class ToyTokenizer:
    """Token i is the i-th letter; token 0 ends."""

    end_ids = frozenset({END})

    def decode(self, ids):
        return "".join(chr(ord("a") + token - 1) for token in ids if token != END)


@pytest.fixture
def toy():
    return ToyModel()


@pytest.fixture
def toy_tokenizer():
    return ToyTokenizer()


@pytest.fixture
def naive(toy):
    """The obvious loop: one sequence, the whole prefix each time; only the random stream is the engine's."""
    from octavo.engine.sampler import Draws, sample, stream_key
    from octavo.tasks.types import Completion

    def draw(request, index):
        params, ids, logprobs, tokenizer = request.params, [], [], ToyTokenizer()
        while True:
            draws = Draws(
                np.array([params.temperature], np.float32),
                np.array([params.top_p]),
                np.array([params.top_k]),
                np.array([stream_key(params.seed, index)]),
                np.array([len(ids)]),
            )
            logits_V = toy.logits_after([*request.prompt_ids, *ids])
            token = int(sample(logits_V[None], draws)[0])
            ids.append(token)
            logprobs.append(float(logits_V.log_softmax(-1)[token]))
            text = tokenizer.decode(ids)
            starts = [text.find(stop) for stop in params.stop if stop in text]
            if starts:
                text = text[: min(starts)]
            if token == END or starts:
                reason = "stop"
            elif len(ids) == params.max_tokens or len(request.prompt_ids) + len(ids) == toy.config.max_positions:
                reason = "length"
            else:
                continue
            return Completion(request.prompt_ids, tuple(ids), tuple(logprobs), text, reason)

    return lambda request: [draw(request, index) for index in range(request.samples)]


@pytest.fixture
def same():
    """Equal completions, log-probs to float32 rounding."""

    def check(ours, theirs):
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert [(c.ids, c.text, c.finish_reason, c.prompt_ids) for c in left] == [
                (c.ids, c.text, c.finish_reason, c.prompt_ids) for c in right
            ]
            for a, b in zip(left, right, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)

    return check
