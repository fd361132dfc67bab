"""The model's two forward passes: prefill reads prompts, decode adds one token to every running row.

Shapes: `P` prompts of one pass, `B` rows, `T` tokens, `D` width, `V` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from octavo.engine.prefix_cache import Head
from octavo.model.cache import Cache
from octavo.model.transformer import Transformer


@dataclass(frozen=True)
class Prefix:
    """A prompt that was read: row `row` of `cache`, and the logits of the token that follows it."""

    cache: Cache
    row: int
    logits_V: Tensor


class Runner:
    """Knows tensors and the model, nothing of requests. Call under `torch.inference_mode()`."""

    def __init__(self, model: Transformer, prefill_tokens: int) -> None:
        self._model = model
        self._prefill_tokens = prefill_tokens

    def prefill(self, prompts: Sequence[Sequence[int]], heads: Sequence[Head] | None = None) -> list[Prefix]:
        """Read prompts, in passes of prompts of similar length; one Prefix each, in the order given.

        `heads`: what is known already of the beginning of each prompt, and is not read.
        """
        prefixes: dict[int, Prefix] = {}
        heads = heads or [Head()] * len(prompts)
        known = [head.tokens for head in heads]
        unread = [len(prompt) - tokens for prompt, tokens in zip(prompts, known, strict=True)]
        for indices in plan_passes(unread, self._prefill_tokens, known):
            passed = self._prefill_together([prompts[index] for index in indices], [heads[index] for index in indices])
            prefixes.update(zip(indices, passed, strict=True))
        return [prefixes[index] for index in range(len(prompts))]

    def decode(self, last_B: np.ndarray, cache: Cache) -> Tensor:
        """Append each row's last token to its cache row; return logits_BV of the next."""
        inputs_B1 = torch.from_numpy(last_B)[:, None].to(cache.lengths_B.device)
        return self._model.logits(self._model.forward_cached(inputs_B1, cache)[:, -1])

    def _prefill_together(self, prompts: Sequence[Sequence[int]], heads: Sequence[Head]) -> list[Prefix]:
        unread = [prompt[head.tokens :] for prompt, head in zip(prompts, heads, strict=True)]
        lengths_P = torch.tensor([len(ids) for ids in unread])
        longest = int(lengths_P.max())
        cache = self._model.new_cache(len(prompts), max(head.tokens for head in heads) + longest)
        device = cache.lengths_B.device
        inputs_PT = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, (ids, head) in enumerate(zip(unread, heads, strict=True)):
            inputs_PT[row, : len(ids)] = torch.tensor(ids)
            head.write(cache, row)
        inputs_PT, lengths_P = inputs_PT.to(device), lengths_P.to(device)
        # A prompt longer than a pass may be is alone in it, and is read in pieces.
        for piece_PT in inputs_PT.split(max(1, self._prefill_tokens // len(prompts)), dim=1):
            hidden_PTD = self._model.forward_cached(piece_PT, cache)
        last_P = lengths_P - 1 - (longest - hidden_PTD.shape[1])
        logits_PV = self._model.logits(hidden_PTD[torch.arange(len(prompts), device=device), last_P])
        cache.lengths_B[:] = torch.tensor([len(prompt) for prompt in prompts])
        return [Prefix(cache, row, logits_V) for row, logits_V in enumerate(logits_PV)]


def plan_passes(lengths: Sequence[int], prefill_tokens: int, known: Sequence[int] = ()) -> list[list[int]]:
    """Split prompts (by index) into passes, each padded to its longest, sorted by length.

    A pass holds at most `prefill_tokens` tokens, padding and what is `known` before each prompt included, and no more
    padding than prompt; a prompt that is longer than that is a pass of its own.
    """
    passes: list[list[int]] = []
    real = before = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        length = lengths[index]
        own = known[index] if known else 0
        if passes:
            rows, before = len(passes[-1]) + 1, max(before, own)
            if rows * (before + length) <= prefill_tokens and rows * length <= 2 * (real + length):
                passes[-1].append(index)
                real += length
                continue
        passes.append([index])
        real, before = length, own
    return passes
