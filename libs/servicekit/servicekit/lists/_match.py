"""Restrictions with parsed values, shared by SQL and memory so that both give the same results."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from servicekit.lists._filter import Restriction, Value, wrong
from servicekit.lists.kinds import Kind

Test = Literal["present", "=", "<", "<=", ">", ">=", "contains", "starts", "ends"]


_ORDERED: dict[str, Test] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Declared(Protocol):
    """A field of a list."""

    @property
    def source(self) -> Any: ...
    @property
    def kind(self) -> Kind: ...


@dataclass(frozen=True)
class Match:
    """A test of a field against `value`; with `negated`, the test must fail. An absent field passes no test."""

    field: Declared
    test: Test
    value: Any
    negated: bool


def match(restriction: Restriction, fields: Mapping[str, Declared], text: str) -> Match:
    """Returns the restriction with its declared field and its parsed value.

    Raises:
        InvalidArgument: the field, the operator or the value is wrong for this list.
    """
    declared = fields.get(restriction.field)
    if declared is None:
        raise wrong(unknown_field("cannot filter by", restriction.field, list(fields)), text)
    operator, kind, value = restriction.operator, declared.kind, restriction.value
    negated = operator == "!="
    if value.anything:
        if operator not in ("=", "!=", ":"):
            raise wrong(f"{restriction.field} {operator} *: * is only allowed with =, != and :", text)
        return Match(declared, "present", None, negated)
    if operator in _ORDERED:
        if not kind.ordered:
            raise wrong(f"{restriction.field} can be compared with = and !=, not with {operator}", text)
        return Match(declared, _ORDERED[operator], _read(restriction, kind, str(value), text), False)
    test = _test(value, operator) if kind.searchable else "="
    literal = str(value) if not kind.searchable or test == "=" else value.text
    return Match(declared, test, _read(restriction, kind, literal, text), negated)


def unknown_field(what: str, name: str, known: Sequence[str]) -> str:
    """Returns the message for a field that a list does not have, with the one that was probably meant."""
    close = difflib.get_close_matches(name, known, 1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{what} {name!r}; {guess}the fields are {', '.join(known) or 'none'}"


def _test(value: Value, operator: str) -> Test:
    if operator == ":" or (value.open_start and value.open_end):
        return "contains"
    if value.open_start:
        return "ends"
    return "starts" if value.open_end else "="


def _read(restriction: Restriction, kind: Kind, literal: str, text: str) -> Any:
    try:
        return kind.parse(literal)
    except (ValueError, KeyError, OverflowError):
        raise wrong(
            f"{restriction.field} is compared with {literal!r}; it must be {kind.form}", text
        ) from None
