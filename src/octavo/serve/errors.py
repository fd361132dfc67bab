"""What a client did wrong or must wait for, as an HTTP status and in the shape of OpenAI's API."""

from typing import Any

from octavo.errors import OctavoError, RequestError

_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}


class ApiError(OctavoError):
    """A request that is refused or was given up. `code` is for programs, the message for people, `param` the field."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        """As OpenAI's API answers."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """`x-should-retry` is what OpenAI's clients go by: they would repeat a timeout as it is."""
        if self.retry_after_seconds is not None:
            return {"retry-after": str(self.retry_after_seconds)}
        return {"x-should-retry": "false"} if self.status in (408, 409) or self.status >= 500 else {}


def api_error(error: Exception) -> ApiError:
    """Any error as one of these. What is no OctavoError is a bug of ours: its details stay on this side."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError) and "tokens, expected at most" in str(error):
        return ApiError(400, str(error), "context_length_exceeded")
    if isinstance(error, OctavoError):
        return ApiError(400, str(error), "invalid_value")
    return ApiError(500, "an error inside the server; its log says what", "internal_error")
