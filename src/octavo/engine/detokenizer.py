"""Token ids to text, one token at a time, never half a character.

One character may be spread over several tokens of a byte-level vocabulary. Decoding too early shows U+FFFD, the
replacement character, at the end; so what ends in one waits for the next token.
"""

from octavo.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Decodes a growing sequence; the pieces that it returns add up to the text of the whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Tokens still to be read together. The first may be old: vocabularies that write a leading space differently
        # at the start of a text need one token of context.
        self._window: list[int] = []
        self._returned = 0  # characters of the window's text that were returned before

    def add(self, token: int) -> str:
        """Text that became certain with this token; may be empty."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        certain = text.rstrip(REPLACEMENT)
        piece = certain[self._returned :]
        self._returned = max(self._returned, len(certain))
        if piece and certain == text and len(self._window) > 1:
            self._window = [token]
            self._returned = len(self._tokenizer.decode(self._window))
        return piece

    def flush(self) -> str:
        """The rest at the end of the sequence: bytes that never became a character, as U+FFFD."""
        piece = self._tokenizer.decode(self._window)[self._returned :]
        self._returned += len(piece)
        return piece
