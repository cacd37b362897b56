"""HTTP statuses of gRPC codes, and gRPC codes of HTTP statuses."""

from __future__ import annotations

import grpc

from servicekit.errors import DomainError

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_STATUS_OF_REASON = {"REQUEST_TOO_LARGE": 413, "DISK_FULL": 507}
_CODES = {400: grpc.StatusCode.INVALID_ARGUMENT, **{s: code for code, s in _STATUS.items() if s > 400}}


def status_of(error: DomainError) -> int:
    """Returns the HTTP status of an error; 500 when HTTP has no more specific one."""
    return _STATUS_OF_REASON.get(error.reason) or _STATUS.get(error.code, 500)


def code_of(status: int) -> grpc.StatusCode:
    """Returns the gRPC code of an HTTP status."""
    if status < 400:
        return grpc.StatusCode.OK
    return _CODES.get(status, grpc.StatusCode.UNKNOWN)
