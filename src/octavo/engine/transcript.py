"""The text of one sequence while it grows: finds stop strings, holds back what might become one."""

from collections.abc import Sequence

from octavo.engine.detokenizer import Detokenizer
from octavo.text.tokenizer import Tokenizer


class Transcript:
    """Kept only for sequences that have stop strings or are streamed; all others are decoded once, at their end."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self.text = ""
        self.stopped = False
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = tuple(stop)
        self._shown = 0

    def add(self, token: int) -> None:
        """Read one token; afterwards `stopped` tells whether a stop string is complete (`text` is cut before it)."""
        self._extend(self._detokenizer.add(token))

    def close(self) -> None:
        """The sequence ended: nothing is held back any longer."""
        if not self.stopped:
            self._extend(self._detokenizer.flush())
            self._stop = ()

    def take(self) -> str:
        """Text since the last call that no later token can turn into a stop string."""
        certain = len(self.text) if self.stopped else len(self.text) - self._held_back()
        piece = self.text[self._shown : certain]
        self._shown = max(self._shown, certain)
        return piece

    def _extend(self, piece: str) -> None:
        known = len(self.text)
        self.text += piece
        # A stop string that is complete only now reaches into the new piece.
        found = [self.text.find(stop, max(0, known - len(stop) + 1)) for stop in self._stop]
        starts = [start for start in found if start >= 0]
        if starts:
            self.text = self.text[: min(starts)]
            self.stopped = True

    def _held_back(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stop):
                return length
        return 0
