"""Sampling from a model with adapters as fast as from a plain one."""

from collections.abc import Sequence
from typing import final

from octavo.model.lora import folded
from octavo.model.transformer import Transformer
from octavo.tasks.types import Completer, Completion, CompletionRequest


@final
class FoldedCompleter:
    """Folds the adapters of the engine's model into its weights while it samples.

    Without it sampling goes through the adapters: right as well, and without a copy of the weights, but slower: by some
    10% for dense models of 135M, by half where experts are adapted. Folding costs less than ten decoding steps.
    """

    def __init__(self, completer: Completer, model: Transformer) -> None:
        self._completer, self._model = completer, model

    def complete(self, requests: Sequence[CompletionRequest]) -> list[list[Completion]]:
        """As the engine's own."""
        with folded(self._model):
            return self._completer.complete(requests)
