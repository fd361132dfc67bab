"""The space that SentencePiece vocabularies put before a text, and must not put before its middle.

A piece that goes on with a text (what the model writes behind a prompt, say) is encoded without it. Two kinds exist:
the normalizer's, which comes back behind every control token (Llama 2), and that of the pre-tokenizer `Metaspace`,
which may stand at the very beginning only (Mistral). llama.cpp knows the first.
"""

import json
from typing import Any

import tokenizers


def is_repeated(backend: tokenizers.Tokenizer) -> bool:
    """Whether the space comes back behind every control token."""
    return any(step["type"] == "Prepend" for step in _normalizers(backend)) or _scheme(backend) == "always"


def without(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer | None:
    """A copy that puts none; None if the backend itself puts none."""
    if not is_repeated(backend) and _scheme(backend) != "first":
        return None
    definition = json.loads(backend.to_str())
    kept = [step for step in _normalizers(backend) if step["type"] != "Prepend"]
    definition["normalizer"] = {"type": "Sequence", "normalizers": kept}
    if _scheme(backend) is not None:
        definition["pre_tokenizer"]["prepend_scheme"] = "never"
    copy = tokenizers.Tokenizer.from_str(json.dumps(definition))
    copy.encode_special_tokens = True
    return copy


def _normalizers(backend: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    state = _state(backend.normalizer)
    return state.get("normalizers", [state] if state else [])


def _scheme(backend: tokenizers.Tokenizer) -> str | None:
    return _state(backend.pre_tokenizer).get("prepend_scheme")


def _state(component: Any) -> dict[str, Any]:
    return {} if component is None else json.loads(component.__getstate__())
