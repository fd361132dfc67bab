"""An engine that says how far it is, and counts what it generated."""

from collections.abc import Callable, Sequence
from typing import final

from octavo.engine.engine import Engine
from octavo.tasks.types import Completion, CompletionRequest

Report = Callable[[int, int, int], None]
"""Called with completions done, completions asked for, tokens so far (prompts once a request, and completions)."""


@final
class WatchedEngine:
    """A `Completer` over an engine. `tokens` adds up over all calls."""

    def __init__(self, engine: Engine, report: Report | None = None):
        self.engine = engine
        self.tokens = 0
        self._report = report

    def complete(self, requests: Sequence[CompletionRequest]) -> list[list[Completion]]:
        """As `Engine.complete`, reporting whenever a completion is done."""
        completions: dict[int, dict[int, Completion]] = {self.engine.submit(request): {} for request in requests}
        wanted, done = sum(request.samples for request in requests), 0
        self.tokens += sum(len(request.prompt_ids) for request in requests)
        try:
            while self.engine.has_work:
                ended = [event for event in self.engine.step() if event.completion is not None]
                for event in ended:
                    assert event.completion is not None
                    completions[event.request_id][event.sample] = event.completion
                    self.tokens += len(event.completion.ids)
                done += len(ended)
                if ended and self._report:
                    self._report(done, wanted, self.tokens)
        finally:
            self.engine.clear()
        return [[samples[index] for index in range(len(samples))] for samples in completions.values()]
