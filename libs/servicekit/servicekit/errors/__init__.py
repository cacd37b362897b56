"""Every error a caller can see, and its one form on the wire.

Domain code raises these; handlers never call ``context.abort``. `to_status` makes a ``google.rpc.Status`` that always
carries an ErrorInfo (domain ``openledger.dev``, a reason in UPPER_SNAKE, metadata), and `from_rpc_error` turns what a
client received back into the same class with the same fields.
"""

from servicekit.errors.status import DOMAIN, from_rpc_error, from_status, to_status
from servicekit.errors.tree import (
    Aborted,
    AlreadyExists,
    Cancelled,
    CorruptObject,
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
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "CorruptObject",
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
    "from_rpc_error",
    "from_status",
    "to_status",
]
