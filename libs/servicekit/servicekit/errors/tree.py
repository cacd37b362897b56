"""The error tree: one class a gRPC code, each with the fields a program needs to act on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc


class StartupError(Exception):
    """A service cannot start or go on for a reason its operator can mend; its text is the one line they see."""


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


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: its path in the request, the rule it breaks, a sentence, and the value when it may be shown."""

    field: str
    rule: str
    message: str
    value: str | None = None


class InvalidArgument(DomainError):
    """A field of the request is wrong whatever the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, rule: str, message: str, value: object = None) -> None:
        shown = None if value is None else str(value)[:200]
        self._fill([FieldViolation(field, rule, message, shown)])

    @classmethod
    def many(cls, violations: Iterable[FieldViolation]) -> InvalidArgument:
        """One error for several wrong fields (at least one)."""
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
    """What was named does not exist."""

    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{_snake(kind)}_NOT_FOUND", f"{kind} {name!r} does not exist", {"kind": kind, "name": name}
        )
        self.kind, self.name = kind, name


class AlreadyExists(DomainError):
    """What was to be made exists, and is not the same."""

    code = grpc.StatusCode.ALREADY_EXISTS

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"{_snake(kind)}_EXISTS", f"{kind} {name!r} already exists", {"kind": kind, "name": name}
        )
        self.kind, self.name = kind, name


class FailedPrecondition(DomainError):
    """The request is right, the system's state is not: ``subject`` names the resource whose state is in the way."""

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
    """No token, or one that does not stand; ``reason`` is UPPER_SNAKE (TOKEN_MISSING, TOKEN_EXPIRED, ...)."""

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
    """Another change won; the request may be sent again."""

    code = grpc.StatusCode.ABORTED


class Unavailable(_Retryable):
    """Something this service needs does not answer now."""

    code = grpc.StatusCode.UNAVAILABLE


class Cancelled(DomainError):
    """The caller went away or asked to stop."""

    code = grpc.StatusCode.CANCELLED

    def __init__(self, reason: str = "CANCELLED", message: str = "cancelled by the caller") -> None:
        super().__init__(reason, message)


class DeadlineExceeded(DomainError):
    """The call's time was over before its work was."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED

    def __init__(self, limit_s: float | None = None) -> None:
        within = "" if limit_s is None else f" of {limit_s:g} s"
        metadata = {} if limit_s is None else {"limit_s": f"{limit_s:g}"}
        super().__init__("DEADLINE_EXCEEDED", f"the call's deadline{within} passed", metadata)


class Unimplemented(DomainError):
    """The method exists in the proto and not in this version of the service."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(
        self, reason: str = "UNIMPLEMENTED", message: str = "this service does not implement the method"
    ) -> None:
        super().__init__(reason, message)


class CorruptObject(DomainError):
    """Stored bytes do not have the digest they are named by."""

    code = grpc.StatusCode.DATA_LOSS

    def __init__(self, digest: str, found: str) -> None:
        super().__init__(
            "CORRUPT_OBJECT", f"object {digest} holds bytes of {found}", {"digest": digest, "found": found}
        )
        self.digest, self.found = digest, found


class Internal(DomainError):
    """A defect; the caller learns only the trace id under which the log tells the rest."""

    code = grpc.StatusCode.INTERNAL

    def __init__(self, trace_id: str) -> None:
        super().__init__("INTERNAL", f"internal error, trace id {trace_id}", {"trace_id": trace_id})
        self.trace_id = trace_id


def _snake(kind: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in kind).upper()
