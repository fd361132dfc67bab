"""Which documents of a text corpus are held out: by their content alone, so that no order and no copy leaks one."""

import hashlib
from typing import Literal

from octavo.text.messages import Document

Part = Literal["all", "train", "held_out"]

# A constant and no config field: two stages with different shares would leak held-out documents into each other.
HELD_OUT_SHARE = 0.1


def is_in(part: Part, document: Document) -> bool:
    """Whether a document belongs to that part."""
    if part == "all":
        return True
    words = document.text or "\0".join(f"{message.role} {message.content}" for message in document.messages)
    digest = hashlib.sha256(b"held-out\0" + " ".join(words.split()).encode()).digest()
    return (int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64) == (part == "held_out")
