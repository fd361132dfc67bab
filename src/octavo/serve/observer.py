"""Whoever counts what a service does overrides these; nobody needs to."""

from octavo.serve.calls import Usage


class Observer:
    """Called on the service's event loop."""

    def refused(self, model: str) -> None:
        """The queue was full."""

    def first_token(self, model: str, seconds: float) -> None:
        """The first token of a request is known, so long after it came."""

    def finished(self, model: str, reason: str, usage: Usage, seconds: float) -> None:
        """A request is over: `reason` is that of its last sample, "cancelled" or "error"."""
