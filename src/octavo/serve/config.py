"""What a server may use, and whom it lets in."""

from typing import Literal

from pydantic import Field

from octavo.config import Config


class ServiceConfig(Config):
    """Bounds on memory and work."""

    quantize: Literal["int8"] | None = None
    """Weights in 8 bits: a quarter of the memory, and faster; None: float32, exact."""
    max_rows: int = Field(default=64, gt=0)
    """Sequences that each model writes at once."""
    max_tokens: int | None = Field(default=None, gt=1)
    """Longest sequence, prompt and completion together; None: what the model can read."""
    default_max_tokens: int = Field(default=2048, gt=0)
    """Longest reply where a request names none."""
    queue_rows: int = Field(default=256, ge=0)
    """Sequences that may wait for a row; beyond these, requests are answered with 429."""
    max_samples: int = Field(default=64, gt=0)
    """Largest n."""
    deadline_seconds: float = Field(default=600.0, gt=0)
    """A request that is not finished after so long is given up."""
    memory_bytes: int | None = Field(default=None, gt=0)
    """For weights and caches of all loaded models; None: 60% of the machine's memory."""
    cache_share: float = Field(default=0.25, gt=0, lt=1)
    """Of this memory: for keys and values of the sequences that each model writes. Where it does not suffice, they
    write in turns."""
    prefix_share: float = Field(default=0.05, ge=0, lt=1)
    """Of this memory: for keys and values of prompts that each model has read before; 0: none are kept."""


class ServeConfig(Config):
    """Where the server listens, and whom it lets in."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0: any that is free."""
    api_key: str | None = Field(default=None, min_length=1, repr=False)
    """What clients must show; None: nothing."""
    insecure: bool = False
    """Serve other machines without a key."""
    origins: tuple[str, ...] = ()
    """Web pages of other servers that may use this one, as `https://example.org`."""
    hosts: tuple[str, ...] = ()
    """Names by which this server may be called, beside addresses, localhost and the machine's own name."""
    max_body_bytes: int = Field(default=8 * 2**20, gt=0)
    """Largest request."""
    body_seconds: float = Field(default=30.0, gt=0)
    """A request that has not arrived whole after so long is given up."""
    shutdown_seconds: int = Field(default=60, gt=0)
    """When told to stop, the server finishes what runs, but waits no longer than this."""
    pages: bool = True
    """Serve the pages for people."""
    runs: str = "runs"
    """Folder below which the page of /runs looks for run folders."""
    save_rows: str | None = None
    """File to which the chat page appends answers that were kept, as rows to learn from; None: no such button."""
