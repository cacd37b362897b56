"""The error classes: one per gRPC code, each with the fields that a program needs to act on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc


class StartupError(Exception):
    """A service cannot start or continue, and its operator can fix the cause. The operator sees its text as one line."""


class DomainError(Exception):
    """An error with a meaning for the caller.

    Attributes:
        code: the gRPC status code.
        reason: what happened, UPPER_SNAKE, stable: programs switch on it.
        message: one sentence for a person: what was wrong, with which value, what would be right.
        metadata: the values in the message, for programs.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return self.message


UNKNOWN_FIELD = "unknown_field"
"""The rule that an unknown field breaks. The last part of its path is what the caller wrote."""


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: its path in the request, the rule it breaks, a message, and the value if it may be shown.

    Keys of a map are in brackets in the path (``labels["team"]``). Logs omit them, as they omit values.
    """

    field: str
    rule: str
    message: str
    value: str | None = None


class InvalidArgument(DomainError):
    """A field of the request is wrong, whatever the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, rule: str, message: str, value: object = None) -> None:
        shown = None if value is None else str(value)[:200]
        self._fill([FieldViolation(field, rule, message, shown)])

    @classmethod
    def many(cls, violations: Iterable[FieldViolation]) -> InvalidArgument:
        """Returns one error for several wrong fields (at least one)."""
        error = cls.__new__(cls)
        error._fill(list(violations))
        return error

    def _fill(self, violations: list[FieldViolation]) -> None:
        first = violations[0]
        text = "; ".join(f"{v.field}: {v.message}" if v.field else v.message for v in violations)
        metadata = {"field": first.field, "rule": first.rule}
        if first.value is not None:
            metadata["value"] = first.value
        super().__init__("INVALID_ARGUMENT", text, metadata)
        self.violations = tuple(violations)


class NotFound(DomainError):
    """The named resource does not exist."""

    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{_snake(kind)}_NOT_FOUND", f"{kind} {name!r} does not exist", {"kind": kind, "name": name}
        )
        self.kind, self.name = kind, name


class AlreadyExists(DomainError):
    """The resource exists already and differs from the requested one."""

    code = grpc.StatusCode.ALREADY_EXISTS

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{_snake(kind)}_EXISTS", f"{kind} {name!r} already exists", {"kind": kind, "name": name}
        )
        self.kind, self.name = kind, name


class FailedPrecondition(DomainError):
    """The request is valid, but the state of the resource ``subject`` does not allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, reason: str, message: str, *, subject: str = "", **metadata: object) -> None:
        super().__init__(reason, message, {key: str(value) for key, value in metadata.items()})
        self.subject = subject


class PermissionDenied(DomainError):
    """The caller is known and lacks a permission."""

    code = grpc.StatusCode.PERMISSION_DENIED

    def __init__(self, permission: str, principal: str) -> None:
        message = f"{principal!r} lacks the permission {permission!r}"
        super().__init__("PERMISSION_DENIED", message, {"permission": permission, "principal": principal})
        self.permission, self.principal = permission, principal


class Unauthenticated(DomainError):
    """The call has no token, or an invalid one; ``reason`` is UPPER_SNAKE (TOKEN_MISSING, TOKEN_EXPIRED, ...)."""

    code = grpc.StatusCode.UNAUTHENTICATED

    def __init__(self, reason: str, message: str = "a valid bearer token is required") -> None:
        super().__init__(reason, message)


class _Retryable(DomainError):
    """An error after which the same request may succeed; ``retry_after_s`` says when, if known."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata)
        self.retry_after_s = retry_after_s


class ResourceExhausted(_Retryable):
    """A quota, a queue or a disk is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(_Retryable):
    """The request conflicted with another change; it may be sent again."""

    code = grpc.StatusCode.ABORTED


class Unavailable(_Retryable):
    """Something that this service needs does not answer now."""

    code = grpc.StatusCode.UNAVAILABLE


class Cancelled(DomainError):
    """The caller disconnected or cancelled the call."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self, reason: str = "CANCELLED", message: str = "cancelled by the caller") -> None:
        super().__init__(reason, message)


class DeadlineExceeded(DomainError):
    """The deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(self, limit_s: float | None = None) -> None:
        within = "" if limit_s is None else f" of {limit_s:g} s"
        metadata = {} if limit_s is None else {"limit_s": f"{limit_s:g}"}
        super().__init__("DEADLINE_EXCEEDED", f"the call's deadline{within} passed", metadata)


class Unimplemented(DomainError):
    """The method exists in the proto but not in this version of the service."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(
        self, reason: str = "UNIMPLEMENTED", message: str = "this service does not implement the method"
    ) -> None:
        super().__init__(reason, message)


class CorruptObject(DomainError):
    """Stored bytes do not have the digest that they are named by."""

    code = grpc.StatusCode.DATA_LOSS

    def __init__(self, digest: str, found: str) -> None:
        super().__init__(
            "CORRUPT_OBJECT", f"object {digest} holds bytes of {found}", {"digest": digest, "found": found}
        )
        self.digest, self.found = digest, found


class DamagedDatabase(DomainError):
    """The database's file is malformed. What to do is for operators; the log has the traceback."""

    code = grpc.StatusCode.DATA_LOSS

    def __init__(self) -> None:
        super().__init__(
            "DATABASE_DAMAGED",
            "this service's database file is damaged: its operator must restore it from a backup, or stop the service and"
            " read what is left with the command `sqlite3 FILE .recover`",
        )


class Internal(DomainError):
    """A defect. The caller sees only a trace id, with which operators find the details in the log."""

    code = grpc.StatusCode.INTERNAL

    def __init__(self, trace_id: str) -> None:
        super().__init__("INTERNAL", f"internal error, trace id {trace_id}", {"trace_id": trace_id})
        self.trace_id = trace_id


def _snake(kind: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in kind).upper()
