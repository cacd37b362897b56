"""Errors as ``google.rpc.Status``. The only module that knows the wire form; `openledger_client.errors` reads it."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from servicekit.errors import tree
from servicekit.errors.tree import DomainError

DOMAIN = "openledger.dev"
DETAILS_KEY = "grpc-status-details-bin"

# Status and details are sent in HTTP/2 trailers, which peers limit to 8 KiB by default, and perhaps in base64. Beyond that a
# client sees a broken connection instead of the error. These bounds keep a status below 6,000 bytes.
_MAX_TEXT = 220
_MAX_FIELD = 120
_MAX_MESSAGE = 1000
_MAX_VIOLATIONS = 8
_MAX_METADATA = 200
_MAX_METADATA_ENTRIES = 8


def to_status(error: DomainError) -> status_pb2.Status:
    """Returns the wire form of an error, shortened to fit into trailers."""
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


def _seconds(value_s: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(value_s * 1e9))
    return duration


def _cut(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _reason(rule: str) -> str:
    """Returns a rule in UPPER_SNAKE, which google.rpc requires; protovalidate's rule ids have dots (string.min_len)."""
    return "".join(c if c.isalnum() else "_" for c in rule).upper()
