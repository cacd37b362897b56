"""Filters, orders and positions for items in memory, with the same meaning as in `_sql`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from servicekit.lists import _filter
from servicekit.lists._match import Declared, Match, match
from servicekit.lists._sort import Sort

T = TypeVar("T")

_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "present": lambda found, value: True,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "contains": lambda found, value: value in found,
    "starts": lambda found, value: found.startswith(value),
    "ends": lambda found, value: found.endswith(value),
}


def value_of(source: Any, item: Any) -> Any:
    """Returns a field of an item: by the field's function, or by the name of its column."""
    return source(item) if callable(source) else getattr(item, source.key)


def condition(node: _filter.Node, fields: Mapping[str, Declared], text: str) -> Callable[[Any], bool]:
    """Returns a filter as a function of an item."""
    match node:
        case _filter.And(parts):
            all_of = [condition(part, fields, text) for part in parts]
            return lambda item: all(matches(item) for matches in all_of)
        case _filter.Or(parts):
            any_of = [condition(part, fields, text) for part in parts]
            return lambda item: any(matches(item) for matches in any_of)
        case _filter.Not(part):
            inner = condition(part, fields, text)
            return lambda item: not inner(item)
        case _filter.Restriction():
            return _restriction(match(node, fields, text))


def _restriction(asked: Match) -> Callable[[Any], bool]:
    test = _TESTS[asked.test]

    def matches(item: Any) -> bool:
        found = value_of(asked.field.source, item)
        return (found is not None and test(found, asked.value)) != asked.negated

    return matches


def ordered(items: Iterable[T], sorts: Sequence[Sort]) -> list[tuple[T, tuple[Any, ...]]]:
    """Returns the items in order, each with the values it is sorted by."""
    keyed = [(item, tuple(value_of(sort.source, item) for sort in sorts)) for item in items]
    for number, sort in reversed(list(enumerate(sorts))):  # sorting is stable: the last term first
        keyed.sort(key=lambda pair, at=number: _rank(pair[1][at]), reverse=sort.descending)  # type: ignore[misc]
    return keyed


def is_after(values: Sequence[Any], position: Sequence[Any], sorts: Sequence[Sort]) -> bool:
    """Returns whether an item with these values comes after the position."""
    for value, at, sort in zip(values, position, sorts, strict=True):
        if value != at:
            return (_rank(value) > _rank(at)) != sort.descending
    return False


def _rank(value: Any) -> tuple[bool, Any]:
    """Returns a sort key that puts absent values before all others."""
    return (value is not None, value if value is not None else 0)
