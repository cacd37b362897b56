"""Kinds of values that a filter compares: their written form and their stored form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from sqlalchemy import BigInteger
from sqlalchemy.types import TypeEngine

from identity.names import ResourceName, with_article

N = TypeVar("N", bound=ResourceName)

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_INT64 = 1 << 63
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of value.

    Attributes:
        form: the form of a value, for error messages: "a whole number such as 3".
        parse: converts a text to the stored value; raises ValueError.
        ordered: whether <, <=, > and >= make sense.
        searchable: whether `*` at either end is a wildcard, and `field:text` means "contains".
        bind_type: the SQL type of a compared value; None: the column's.
    """

    form: str
    parse: Callable[[str], Any]
    ordered: bool = True
    searchable: bool = False
    bind_type: TypeEngine[Any] | None = None


class EnumWrapper(Protocol):
    """The generated wrapper of an enum of a proto file."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor: ...


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or not -_INT64 <= (value := int(text)) < _INT64:
        raise ValueError
    return value


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


TEXT = Kind(form="a text", parse=str, searchable=True)
# BigInteger: a value beyond a narrower column's range matches nothing; it must not be a database error.
INTEGER = Kind(form="a whole number such as 3", parse=_integer, bind_type=BigInteger())
NUMBER = Kind(form="a number such as 0.25", parse=_number)
TIME = Kind(form='an RFC 3339 time with its zone such as "2026-01-31T12:00:00Z", in quotes', parse=_time)
BOOLEAN = Kind(
    form="true or false", parse=lambda text: {"true": True, "false": False}[text.lower()], ordered=False
)


def choices(stored: Mapping[str, Any]) -> Kind:
    """Returns the kind of a field with named values, written in any case; `stored` maps each name to its stored value."""
    by_name = {name.upper(): value for name, value in stored.items()}
    return Kind(form=f"one of {', '.join(stored)}", parse=lambda text: by_name[text.upper()], ordered=False)


def enum(wrapper: EnumWrapper, stored: Callable[[int], Any] = int) -> Kind:
    """Returns the kind of an enum's field; callers write RUN_STATE_DONE or DONE, in any case.

    `stored` converts a number of the enum to its stored value.
    """
    prefix = _CAMEL.sub("_", wrapper.DESCRIPTOR.name).upper() + "_"
    numbers = {value.name: value.number for value in wrapper.DESCRIPTOR.values if value.number}
    short = {name.removeprefix(prefix): number for name, number in numbers.items()}

    def parse(text: str) -> Any:
        name = text.upper()  # tables show states in lower case
        return stored(short[name] if name in short else numbers[name])

    return Kind(form=f"one of {', '.join(short)}", parse=parse, ordered=False)


def numbered(kind: type[N], stored: Callable[[N], int]) -> Kind:
    """Returns the kind of a field that holds a resource name whose number is stored."""

    def number(name: N) -> int:
        if (value := stored(name)) >= _INT64:  # names have up to 19 digits
            raise ValueError
        return value

    return resource(kind, number, bind_type=INTEGER.bind_type)


def resource(
    kind: type[N], stored: Callable[[N], Any] = str, *, bind_type: TypeEngine[Any] | None = None
) -> Kind:
    """Returns the kind of a field that holds a resource name; `stored` converts the name to its stored value."""
    return Kind(
        form=f"the name of {with_article(kind.kind)}: {kind.pattern()}",
        parse=lambda text: stored(kind.parse(text)),
        ordered=False,
        bind_type=bind_type,
    )
