"""Tokens with a meaning, in the project's own format and in others."""

from dataclasses import dataclass

END_OF_DOCUMENT = "<|endoftext|>"
"""Ends a plain document; also the padding token."""
END_OF_TURN = "<|end|>"
"""Ends what the assistant says."""
CONTROL_TOKENS = (END_OF_DOCUMENT, "<|system|>", "<|user|>", "<|assistant|>", END_OF_TURN)
"""Never typed by anyone, never shown."""
THINK, END_THINK, ANSWER, END_ANSWER = TAG_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
"""One token each wherever they are typed, and shown in decoded text."""

DOCUMENT_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>")
"""What open models end plain documents with."""
GENERATION_ENDS = (*DOCUMENT_ENDS, END_OF_TURN, "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<EOT>")
"""Tokens that end a completion wherever they are control tokens, as llama.cpp has it."""


def looks_like_control(token: str) -> bool:
    """Whether an added token is meant for templates only, though some vocabularies do not call it special.

    The spelling decides, as in llama.cpp's converter: `<|...|>`, and `<｜...｜>` of DeepSeek.
    """
    return (token.startswith("<|") and token.endswith("|>")) or (token.startswith("<｜") and token.endswith("｜>"))


@dataclass(frozen=True)
class SpecialTokens:
    """Which token begins, ends and fills what, by spelling."""

    eos: str
    """What Hugging Face calls `eos_token`: in chat models it ends what the assistant says."""
    end_of_document: str
    """Ends plain text."""
    end_ids: frozenset[int]
    """All that end a completion, those two among them."""
    bos: str | None = None
    """Begins texts; chat templates write it themselves."""
    add_bos: bool = False
    """Whether plain documents begin with it."""
    pad: str | None = None
    unk: str | None = None

    def variables(self) -> dict[str, str]:
        """As chat templates and Hugging Face files name them."""
        named = {"bos_token": self.bos, "eos_token": self.eos, "pad_token": self.pad, "unk_token": self.unk}
        return {name: token for name, token in named.items() if token is not None}
