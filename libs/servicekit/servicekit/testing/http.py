"""For tests: a minimal format of HTTP errors."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from servicekit.errors import DomainError


class PlainErrors:
    """Shows the reason and the message of an error."""

    def response(self, error: DomainError, status: int) -> Response:
        """Returns both as JSON."""
        return JSONResponse({"reason": error.reason, "message": error.message}, status)

    def event(self, error: DomainError) -> bytes:
        """Returns the reason as the last event."""
        return f"event: error\ndata: {error.reason}\n\n".encode()
