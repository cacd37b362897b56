"""Errors as ``google.rpc.Status`` and back. The only place that knows the wire form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from servicekit.errors import tree
from servicekit.errors.tree import DomainError, FieldViolation

DOMAIN = "openledger.dev"
DETAILS_KEY = "grpc-status-details-bin"

# Status and details travel in HTTP/2 trailers, which peers cap at 8 KiB by default, in base64 where the peer asks for it:
# past that a client sees a broken connection in place of its error. These bounds keep a status below 6,000 bytes.
_MAX_TEXT = 220
_MAX_FIELD = 120
_MAX_MESSAGE = 1000
_MAX_VIOLATIONS = 8
_MAX_METADATA = 200
_MAX_METADATA_ENTRIES = 8

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def to_status(error: DomainError) -> status_pb2.Status:
    """The wire form of an error, cut to what trailers can hold."""
    status = status_pb2.Status(code=error.code.value[0], message=_cut(error.message, _MAX_MESSAGE))
    metadata = {
        key: _cut(value, _MAX_METADATA) for key, value in list(error.metadata.items())[:_MAX_METADATA_ENTRIES]
    }
    for detail in (
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
        *_details(error),
    ):
        status.details.add().Pack(detail)
    return status


def _details(error: DomainError) -> Iterable[Message]:
    if isinstance(error, tree.InvalidArgument):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(v.field, _MAX_FIELD),
                description=_cut(v.message, _MAX_TEXT),
                reason=_reason(v.rule),
            )
            for v in error.violations[:_MAX_VIOLATIONS]
        ]
        yield error_details_pb2.BadRequest(field_violations=violations)
    elif isinstance(error, tree.FailedPrecondition):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=error.subject, description=_cut(error.message, _MAX_TEXT)
        )
        yield error_details_pb2.PreconditionFailure(violations=[violation])
    elif isinstance(error, tree.NotFound | tree.AlreadyExists):
        yield error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name)
    elif isinstance(error, tree._Retryable) and error.retry_after_s is not None:
        yield error_details_pb2.RetryInfo(retry_delay=_seconds(error.retry_after_s))


def from_rpc_error(error: grpc.RpcError) -> DomainError:
    """What a failed call meant, as the class the server raised; also for errors gRPC itself made (no details)."""
    call: Any = error  # grpc.Call and grpc.aio.AioRpcError share these methods, RpcError declares none
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    return _plain(call.code(), call.code().name, call.details() or "")


def from_status(status: status_pb2.Status) -> DomainError:
    """The error a status stands for; an unknown shape becomes a plain `DomainError` with its code."""
    info, bad, failed, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.PreconditionFailure(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for message in (info, bad, failed, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    metadata = dict(info.metadata)
    if code is grpc.StatusCode.INVALID_ARGUMENT and bad.field_violations:
        first = metadata.get("rule", "")
        violations = [
            FieldViolation(
                v.field,
                first if i == 0 and first else v.reason,
                v.description,
                metadata.get("value") if i == 0 else None,
            )
            for i, v in enumerate(bad.field_violations)
        ]
        return tree.InvalidArgument.many(violations)
    build = _BUILDERS.get(code)
    error = build(info.reason, status.message, metadata) if build is not None else None
    if error is None:
        error = _plain(code, info.reason or code.name, status.message)
    error.reason, error.metadata = info.reason or error.reason, metadata
    if isinstance(error, tree.FailedPrecondition) and failed.violations:
        error.subject = failed.violations[0].subject
    if isinstance(error, tree._Retryable) and retry.HasField("retry_delay"):
        error.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error


def _plain(code: grpc.StatusCode, reason: str, message: str) -> DomainError:
    simple = _SIMPLE.get(code)
    if simple is not None:
        return simple(reason, message)
    error = DomainError(reason, message)
    error.code = code
    return error


def _deadline_exceeded(reason: str, message: str) -> DomainError:
    error = tree.DeadlineExceeded()
    error.reason, error.message = reason, message
    return error


_SIMPLE: dict[grpc.StatusCode, Callable[[str, str], DomainError]] = {
    grpc.StatusCode.FAILED_PRECONDITION: tree.FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: tree.Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: tree.ResourceExhausted,
    grpc.StatusCode.ABORTED: tree.Aborted,
    grpc.StatusCode.UNAVAILABLE: tree.Unavailable,
    grpc.StatusCode.CANCELLED: tree.Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: tree.Unimplemented,
    grpc.StatusCode.DEADLINE_EXCEEDED: _deadline_exceeded,
}

_Builder = Callable[[str, str, dict[str, str]], DomainError | None]


def _named(build: Callable[[str, str], DomainError], first: str, second: str) -> _Builder:
    """Builds a class from two of its metadata; none where a foreign server left them out."""
    return lambda reason, message, m: build(m[first], m[second]) if first in m and second in m else None


_BUILDERS: dict[grpc.StatusCode, _Builder] = {
    grpc.StatusCode.NOT_FOUND: _named(tree.NotFound, "kind", "name"),
    grpc.StatusCode.ALREADY_EXISTS: _named(tree.AlreadyExists, "kind", "name"),
    grpc.StatusCode.PERMISSION_DENIED: _named(tree.PermissionDenied, "permission", "principal"),
    grpc.StatusCode.DATA_LOSS: _named(tree.CorruptObject, "digest", "found"),
    grpc.StatusCode.INTERNAL: lambda reason, message, m: (
        tree.Internal(m["trace_id"]) if "trace_id" in m else None
    ),
}


def _seconds(value_s: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(value_s * 1e9))
    return duration


def _cut(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _reason(rule: str) -> str:
    """google.rpc wants UPPER_SNAKE; protovalidate's rule ids are dotted (string.min_len)."""
    return "".join(c if c.isalnum() else "_" for c in rule).upper()
