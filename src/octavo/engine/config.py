"""What bounds an engine: rows, tokens a row, tokens a prefill."""

from pydantic import Field

from octavo.config import Config


class EngineConfig(Config):
    """Bounds on memory and on the work of one step. Results do not depend on them."""

    max_rows: int = Field(default=64, gt=0)
    """Sequences decoded at once. More is faster in total and slower for each, and takes more cache."""
    max_tokens: int | None = Field(default=None, gt=1)
    """Longest sequence, prompt and completion together; None: the model's max_positions."""
    cache_tokens: int | None = Field(default=None, gt=0)
    """Room for keys and values: rows times the longest sequence among them. More wait their turn; one sequence alone
    always runs. None: as needed."""
    prefix_cache_bytes: int = Field(default=0, ge=0)
    """Keys and values kept of what was read, for prompts that begin alike; only for weights that stay as they are."""
    prefill_tokens: int = Field(default=4096, gt=0)
    """Prompt tokens read in one step; bounds the time that running sequences wait for new ones, and its memory."""
