"""How well a model foretells a text: what shows when training on one thing made it forget another.

Shapes: `B` = 1 row, `T` tokens of a window, `R` tokens that are scored.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

import torch
from torch import Tensor

from octavo.config import Config
from octavo.errors import DataError
from octavo.losses.logprobs import token_logprobs
from octavo.model.quantize import is_quantized
from octavo.model.transformer import Transformer
from octavo.text.messages import Document
from octavo.text.template import encode_document
from octavo.text.tokenizer import Tokenizer

# Tokens whose logits exist at the same time, where the head is quantized.
_TOKENS = 64


class TextScore(Config):
    """What a model makes of some text."""

    nats_per_token: float
    """Mean loss; depends on how the tokenizer cuts the text."""
    bits_per_byte: float
    """The same per byte of UTF-8: comparable over tokenizers."""
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp(loss): as unsure as if it chose among so many tokens."""
        return math.exp(self.nats_per_token)


@torch.no_grad()
def score_texts(model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], window_tokens: int = 512) -> TextScore:
    """Score every token of each text but its first, in windows of at most `window_tokens` that do not overlap.

    A window sees nothing of the one before, so its first tokens are foretold from little; this is the same for every
    model compared. Raises DataError for texts of less than two tokens in all.
    """
    window_tokens = min(window_tokens, model.config.max_positions)
    device = model.norm.weight.device
    nats, tokens, size = 0.0, 0, 0
    model.eval()
    for text in texts:
        size += len(text.encode())
        for window in _windows(encode_document(tokenizer, Document(text=text)).ids, window_tokens):
            ids_T = torch.tensor(window, device=device)
            hidden_BTD = model(ids_T[None, :-1], torch.arange(len(window) - 1, device=device)[None])
            nats -= float(_logprobs(model, hidden_BTD[0], ids_T[1:]).double().sum())
            tokens += len(window) - 1
    if not tokens:
        raise DataError("there is no text to score: expected at least two tokens")
    return TextScore(nats_per_token=nats / tokens, bits_per_byte=nats / math.log(2) / size, tokens=tokens, bytes=size)


def english_prose(most_bytes: int = 20_000) -> list[str]:
    """The beginning of a story that is in the public domain and comes with reasoning-gym: text that no task trains on.

    "In the Year 2889" by Jules and Michel Verne, 1889.
    """
    story = (resources.files("reasoning_gym") / "data" / "in_the_year_2889.txt").read_text(encoding="utf-8")
    return [story.encode()[:most_bytes].decode(errors="ignore")]


def _logprobs(model: Transformer, hidden_TD: Tensor, targets_T: Tensor) -> Tensor:
    if not is_quantized(model):
        return token_logprobs(hidden_TD, model.head_weight_VD, targets_T)
    # Through the head as the engine uses it, which rounds activations too; a few tokens at a time.
    pieces = [
        model.logits(hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        for hidden, targets in zip(hidden_TD.split(_TOKENS), targets_T.split(_TOKENS), strict=True)
    ]
    return torch.cat(pieces)


def _windows(ids: Sequence[int], window_tokens: int) -> Iterator[Sequence[int]]:
    """Each window begins with the last token of the one before, so that every token but the first is scored once."""
    for start in range(0, len(ids) - 1, window_tokens):
        yield ids[start : start + window_tokens + 1]
