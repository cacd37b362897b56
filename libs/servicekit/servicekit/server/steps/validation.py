"""Validates requests, and each message of a stream, by the rules in their proto files (protovalidate)."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from protovalidate import CompilationError, Validator, Violation

from servicekit.errors import FieldViolation, InvalidArgument, StartupError
from servicekit.server.steps.patterns import in_words


class Validation:
    """Checks messages with one validator, which caches compiled rules."""

    def __init__(self) -> None:
        self._validator = Validator()

    def compile(self, kind: type[Message]) -> None:
        """Compiles a message's rules, so that an invalid rule is found at the start.

        Raises:
            StartupError: a rule does not compile.
        """
        try:
            self._validator.collect_violations(kind())
        except CompilationError as error:
            raise StartupError(f"the rules of {kind.DESCRIPTOR.full_name} do not compile: {error}") from None

    def check(self, message: Any) -> None:
        """Checks a message. Messages that are not protobuf (of generic handlers) have no rules.

        Raises:
            InvalidArgument: names every field that breaks a rule, the rule, and what would be right.
        """
        if isinstance(message, Message):
            violations = self._validator.collect_violations(message)
            if violations:
                raise InvalidArgument.many(map(_describe, violations))


def _describe(violation: Violation) -> FieldViolation:
    proto = violation.proto
    value = violation.field_value
    shown = str(value)[:200] if isinstance(value, str | int | float | bool) else None
    message = proto.message or proto.rule_id or "is invalid"
    if proto.rule_id == "string.pattern" and (right := in_words(str(violation.rule_value))):
        message = f"{shown!r} is not {right}"
    return FieldViolation(_path(proto.field), proto.rule_id or "custom", message, shown)


def _path(path: Any) -> str:
    """Returns a path as clients write it: ``records[2].text``."""
    text = ""
    for element in path.elements if path is not None else ():
        text += f".{element.field_name}" if text else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            text += f"[{key!r}]" if isinstance(key, str) else f"[{key}]"
    return text
