"""Every error that a caller can see, and its form on the wire.

Domain code raises these; handlers never call ``context.abort``. `to_status` returns a ``google.rpc.Status`` that always has an
ErrorInfo (domain ``openledger.dev``, a reason in UPPER_SNAKE, metadata). Clients read it with `openledger_client.errors`.
"""

from servicekit.errors.status import DOMAIN, to_status
from servicekit.errors.tree import (
    UNKNOWN_FIELD,
    Aborted,
    AlreadyExists,
    Cancelled,
    CorruptObject,
    DamagedDatabase,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StartupError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "DOMAIN",
    "UNKNOWN_FIELD",
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "CorruptObject",
    "DamagedDatabase",
    "DeadlineExceeded",
    "DomainError",
    "FailedPrecondition",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "StartupError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "to_status",
]
