"""One vector for a text, by models that say how: the folder of an embedding model holds 1_Pooling/config.json.

The layout is that of sentence-transformers. Shapes: `T` tokens, `D` width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from octavo.engine.checks import check_request
from octavo.tasks.types import CompletionRequest, SamplingParams

if TYPE_CHECKING:
    from octavo.serve.loaded import Loaded

Mode = Literal["last", "mean"]
_MODES: dict[str, Mode] = {"pooling_mode_lasttoken": "last", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True)
class Embedding:
    """A vector, and how many tokens it is of."""

    vector_D: list[float]
    prompt_tokens: int


@dataclass(frozen=True)
class Pooling:
    """Which hidden states of the last layer make the vector, and whether its length is 1."""

    mode: Mode
    normalized: bool

    @torch.inference_mode()
    def embed(self, loaded: Loaded, ids: tuple[int, ...]) -> Embedding:
        """The vector of a text; where the last token makes it, that is the end of a text. Raises RequestError."""
        if self.mode == "last" and ids[-1] not in loaded.tokenizer.end_ids:
            ids = (*ids, loaded.tokenizer.token_id(loaded.tokenizer.end_of_document))
        check_request(
            CompletionRequest(ids, SamplingParams(max_tokens=1)), loaded.config.vocab_size, loaded.context_tokens + 1
        )
        hidden_TD = loaded.model(torch.tensor([ids]), torch.arange(len(ids))[None])[0].float()
        vector_D = hidden_TD[-1] if self.mode == "last" else hidden_TD.mean(0)
        if self.normalized:
            vector_D = torch.nn.functional.normalize(vector_D, dim=0)
        return Embedding(vector_D.tolist(), len(ids))


def read_pooling(path: Path) -> Pooling | None:
    """What a model folder says; None where it says nothing that is known here."""
    values = _json(path / "1_Pooling" / "config.json")
    modes: list[Mode] = [mode for key, mode in _MODES.items() if isinstance(values, dict) and values.get(key) is True]
    if len(modes) != 1:
        return None
    modules = _json(path / "modules.json")
    kinds = [str(module.get("type", "")) for module in modules or () if isinstance(module, dict)]
    return Pooling(modes[0], any(kind.endswith("Normalize") for kind in kinds))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
