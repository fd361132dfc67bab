"""The model's two forward passes: prefill reads prompts, decode adds one token to every running row.

Shapes: `P` prompts of one pass, `B` rows, `T` tokens, `D` width, `V` vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """Read prompts, in passes of prompts of similar length; one Prefix each, in the order given."""
        prefixes: dict[int, Prefix] = {}
        for indices in plan_passes([len(prompt) for prompt in prompts], self._prefill_tokens):
            passed = self._prefill_together([prompts[index] for index in indices])
            prefixes.update(zip(indices, passed, strict=True))
        return [prefixes[index] for index in range(len(prompts))]

    def decode(self, last_B: np.ndarray, cache: Cache) -> Tensor:
        """Append each row's last token to its cache row; return logits_BV of the next."""
        inputs_B1 = torch.from_numpy(last_B)[:, None].to(cache.lengths_B.device)
        return self._model.logits(self._model.forward_cached(inputs_B1, cache)[:, -1])

    def _prefill_together(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        lengths_P = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths_P.max())
        cache = self._model.new_cache(len(prompts), longest)
        device = cache.lengths_B.device
        inputs_PT = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            inputs_PT[row, : len(prompt)] = torch.tensor(prompt)
        inputs_PT, lengths_P = inputs_PT.to(device), lengths_P.to(device)
        # A prompt longer than a pass may be is alone in it, and is read in pieces.
        for piece_PT in inputs_PT.split(max(1, self._prefill_tokens // len(prompts)), dim=1):
            hidden_PTD = self._model.forward_cached(piece_PT, cache)
        last_P = lengths_P - 1 - (longest - hidden_PTD.shape[1])
        logits_PV = self._model.logits(hidden_PTD[torch.arange(len(prompts), device=device), last_P])
        cache.lengths_B[:] = lengths_P
        return [Prefix(cache, row, logits_V) for row, logits_V in enumerate(logits_PV)]


def plan_passes(lengths: Sequence[int], prefill_tokens: int) -> list[list[int]]:
    """Split prompts (by index) into passes, each padded to its longest, sorted by length.

    A pass reads at most `prefill_tokens` tokens, padding included, and no more padding than prompt; a prompt that is
    longer than that is a pass of its own.
    """
    passes: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        length = lengths[index]
        if passes:
            padded = (len(passes[-1]) + 1) * length
            if padded <= prefill_tokens and padded <= 2 * (real + length):
                passes[-1].append(index)
                real += length
                continue
        passes.append([index])
        real = length
    return passes
