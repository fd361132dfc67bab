"""Who enters next: first come, first served, by free rows and by prompt tokens a step."""

from collections import deque
from collections.abc import Callable

from octavo.engine.config import EngineConfig
from octavo.engine.sequence import Group, Sequence

ENTRY_SHARE = 16
"""Where more wait than fit, a 16th of the rows must be free before any enters: reading one prompt alone costs about as
much as a step of all rows."""


class Scheduler:
    """The queue of groups. A group may enter in parts; only the first in the queue is ever divided."""

    def __init__(self, config: EngineConfig) -> None:
        self._entry_rows = max(1, config.max_rows // ENTRY_SHARE)
        self._prefill_tokens = config.prefill_tokens
        self._queue: deque[Group] = deque()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Samples that have no row yet."""
        return self._waiting

    def add(self, group: Group) -> None:
        self._queue.append(group)
        self._waiting += len(group.waiting)

    def remove(self, request_id: int) -> list[Sequence]:
        """Take a request out of the queue; return its samples that never got a row."""
        for group in self._queue:
            if group.request_id == request_id:
                self._queue.remove(group)
                self._waiting -= len(group.waiting)
                return list(group.waiting)
        return []

    def clear(self) -> None:
        self._queue.clear()
        self._waiting = 0

    def admit(
        self, free_rows: int, fits: Callable[[int, int], bool] = lambda rows, tokens: True
    ) -> list[tuple[Group, list[Sequence]]]:
        """Groups that enter now, each with those of its samples that get a row.

        Prompts are read within `prefill_tokens`, but the first always enters, however long. `fits(rows, tokens)` tells
        whether so many rows of at most so many tokens can enter together.
        """
        admitted: list[tuple[Group, list[Sequence]]] = []
        if free_rows < min(self._waiting, self._entry_rows):
            return admitted
        budget = self._prefill_tokens
        entered = longest = 0
        while self._queue and free_rows:
            group = self._queue[0]
            unread = len(group.request.prompt_ids) if group.prefix is None else 0
            if unread > budget and admitted:
                break
            longest = max(longest, len(group.request.prompt_ids) + group.limit)
            count = min(free_rows, len(group.waiting))
            while count and not fits(entered + count, longest):
                count -= 1
            if not count:
                break
            budget -= unread
            sequences = [group.waiting.popleft() for _ in range(count)]
            admitted.append((group, sequences))
            entered += count
            free_rows -= len(sequences)
            self._waiting -= len(sequences)
            if not group.waiting:
                self._queue.popleft()
        return admitted
