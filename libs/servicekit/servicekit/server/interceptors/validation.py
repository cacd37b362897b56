"""Requests keep the rules that stand in their proto (protovalidate), each message of a stream as well."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from protovalidate import CompilationError, Validator, Violation

from servicekit.errors import FieldViolation, InvalidArgument, StartupError


class Validation:
    """Checks messages. One validator for all, as it keeps what it compiled."""

    def __init__(self) -> None:
        self._validator = Validator()

    def compile(self, kind: type[Message]) -> None:
        """Compiles a message's rules now, so that a rule that cannot be is found at start.

        Raises:
            StartupError: it cannot be compiled.
        """
        try:
            self._validator.collect_violations(kind())
        except CompilationError as error:
            raise StartupError(f"the rules of {kind.DESCRIPTOR.full_name} do not compile: {error}") from None

    def check(self, message: Any) -> None:
        """Messages that are not protobuf (a generic handler's) have no rules.

        Raises:
            InvalidArgument: names every field that breaks a rule, the rule and what would be right.
        """
        if isinstance(message, Message):
            violations = self._validator.collect_violations(message)
            if violations:
                raise InvalidArgument.many(map(_describe, violations))


def _describe(violation: Violation) -> FieldViolation:
    told = violation.proto
    value = violation.field_value
    shown = str(value)[:200] if isinstance(value, str | int | float | bool) else None
    return FieldViolation(
        _path(told.field), told.rule_id or "custom", told.message or told.rule_id or "is invalid", shown
    )


def _path(path: Any) -> str:
    """``records[2].text``, as clients write it."""
    text = ""
    for element in path.elements if path is not None else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            text += f"[{key!r}]" if isinstance(key, str) else f"[{key}]"
    return text
