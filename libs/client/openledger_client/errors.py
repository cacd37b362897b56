"""Errors of calls, one class per gRPC status code, and their one form on the wire.

Every error of a service carries a `google.rpc.Status` with an ErrorInfo: a stable `reason` in UPPER_SNAKE, a message for a
person, and the values of the message as `metadata`. `from_rpc_error` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
"""Key of the trailing metadata that holds the `google.rpc.Status`."""


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of a request."""

    field: str
    """Path in the request, e.g. "spec.learning_rate"."""
    rule: str
    """The rule that it breaks."""
    message: str
    """What is wrong and what would be right."""
    value: str | None = None
    """The value, where it may be shown."""


class OpenLedgerError(Exception):
    """Base of every error that this package raises.

    Attributes:
        code: gRPC status code.
        reason: what happened, UPPER_SNAKE and stable, for programs.
        message: one sentence for a person.
        metadata: the values in the message, for programs.
        violations: the wrong fields of a request; empty for other errors.
        subject: the resource whose state is in the way; "" for other errors.
        retry_after_s: when the server suggests another attempt; None when it does not.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        subject: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.code.name
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.subject = subject
        self.retry_after_s = retry_after_s


class ConfigurationError(OpenLedgerError):
    """No call was made: an address, a token or a file that the client needs is missing or wrong."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class InvalidArgument(OpenLedgerError):
    """A field of the request is wrong, whatever the state of the system; see `violations`."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, field: str, rule: str, message: str, value: object = None) -> Self:
        """Returns the error of one wrong field."""
        shown = None if value is None else str(value)[:200]
        metadata = {"field": field, "rule": rule} | ({} if shown is None else {"value": shown})
        return cls(
            f"{field}: {message}", metadata=metadata, violations=[FieldViolation(field, rule, message, shown)]
        )


class NotFound(OpenLedgerError):
    """The named resource does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(OpenLedgerError):
    """The resource exists and differs from the requested one."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(OpenLedgerError):
    """The request is right, but the state of `subject` does not allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(OpenLedgerError):
    """The caller is known and lacks a permission."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(OpenLedgerError):
    """The call carried no valid token."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(OpenLedgerError):
    """A quota, a queue or a disk is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(OpenLedgerError):
    """A concurrent change won; the request may be sent again."""

    code = grpc.StatusCode.ABORTED


class Unavailable(OpenLedgerError):
    """The service, or something that it needs, does not answer now."""

    code = grpc.StatusCode.UNAVAILABLE


class Cancelled(OpenLedgerError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class DeadlineExceeded(OpenLedgerError):
    """The deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(OpenLedgerError):
    """This version of the service does not have the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class DataLoss(OpenLedgerError):
    """Bytes do not have the digest that they are named by."""

    code = grpc.StatusCode.DATA_LOSS


class Internal(OpenLedgerError):
    """A defect of the service. `metadata["trace_id"]` finds it in the service's log."""

    code = grpc.StatusCode.INTERNAL


_CLASSES: dict[grpc.StatusCode, type[OpenLedgerError]] = {
    each.code: each for each in OpenLedgerError.__subclasses__() if each is not ConfigurationError
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> OpenLedgerError:
    """Returns the typed form of a failed call, also for failures that gRPC itself reports (no details)."""
    call: Any = error  # grpc.Call and grpc.aio.AioRpcError share these methods; RpcError declares none
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    return of_code(call.code(), call.details() or "")


def of_call(failed: grpc.RpcError, peer: Mapping[str, str]) -> OpenLedgerError:
    """Returns the typed form of a failed call. Where gRPC itself says that nobody answers, or another program than the
    service, `peer` (the service and its address) is added to the metadata: the address may be wrong."""
    error = from_rpc_error(failed)
    gives_no_reason = error.reason == error.code.name and not error.metadata
    if isinstance(error, Unavailable | Unimplemented) and gives_no_reason:
        error.metadata.update(peer)
    return error


def of_code(code: grpc.StatusCode, message: str, **fields: Any) -> OpenLedgerError:
    """Returns the error of a status code; `fields` are those of `OpenLedgerError`."""
    found = _CLASSES.get(code)
    if found is not None:
        return found(message, **fields)
    error = OpenLedgerError(message, **fields)
    error.code = code
    error.reason = fields.get("reason") or code.name
    return error


def from_status(status: status_pb2.Status) -> OpenLedgerError:
    """Returns the error that a status stands for."""
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
    metadata = dict(info.metadata)
    return of_code(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        reason=info.reason,
        metadata=metadata,
        violations=_violations(bad, metadata),
        subject=failed.violations[0].subject if failed.violations else "",
        retry_after_s=(
            retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            if retry.HasField("retry_delay")
            else None
        ),
    )


def _violations(bad: error_details_pb2.BadRequest, metadata: Mapping[str, str]) -> list[FieldViolation]:
    """BadRequest allows UPPER_SNAKE rules only; the metadata hold the first one's rule and value as they are."""
    found = [FieldViolation(each.field, each.reason, each.description) for each in bad.field_violations]
    if found and metadata.get("field") == found[0].field:
        rule = metadata.get("rule") or found[0].rule
        found[0] = FieldViolation(found[0].field, rule, found[0].message, metadata.get("value"))
    return found
