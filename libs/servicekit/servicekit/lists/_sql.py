"""Filters, orders and positions as SQL that means the same on SQLite and PostgreSQL.

NULL does not follow three-valued logic here: an absent value passes no test, so `NOT x = 1` and `x != 1` match it. It sorts
before all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, false, func, literal, not_, or_, true
from sqlalchemy.sql import coercions, roles

from servicekit.lists import _filter
from servicekit.lists._match import Declared, Match, match
from servicekit.lists._sort import Sort


def column(source: Any) -> ColumnElement[Any]:
    """Returns the SQL expression of a field. Raises TypeError for a function of an item in memory."""
    if callable(source):
        raise TypeError(f"{source} reads items in memory; a list in the database needs a column")
    expression: ColumnElement[Any] = coercions.expect(roles.ExpressionElementRole, source)
    return expression


def nullable(source: Any) -> bool:
    """Returns whether a field may be absent, as far as its column says."""
    return callable(source) or bool(getattr(column(source), "nullable", True))


def python_type(source: Any) -> type | None:
    """Returns the type of a column's values, where SQLAlchemy knows it."""
    if callable(source):
        return None
    try:
        found: type = column(source).type.python_type
    except NotImplementedError:
        return None
    return found


def condition(node: _filter.Node, fields: Mapping[str, Declared], text: str) -> ColumnElement[bool]:
    """Returns a filter as a condition that is never NULL."""
    match node:
        case _filter.And(parts):
            return and_(*(condition(part, fields, text) for part in parts))
        case _filter.Or(parts):
            return or_(*(condition(part, fields, text) for part in parts))
        case _filter.Not(part):
            return not_(condition(part, fields, text))
        case _filter.Restriction():
            return _restriction(match(node, fields, text))


def _restriction(asked: Match) -> ColumnElement[bool]:
    field = column(asked.field.source)
    present = field.is_not(None)
    held = present if asked.test == "present" else and_(present, _test(field, asked))
    return not_(held) if asked.negated else held


def _test(field: ColumnElement[Any], asked: Match) -> ColumnElement[bool]:
    bind_type = asked.field.kind.bind_type
    value = asked.value if bind_type is None else literal(asked.value, bind_type)
    # LIKE ignores case on SQLite and not on PostgreSQL, and gives % and _ a meaning.
    match asked.test:
        case "contains":
            changed: ColumnElement[bool] = func.replace(field, asked.value, "") != field
            return changed if asked.value else true()
        case "starts":
            begins: ColumnElement[bool] = func.substr(field, 1, len(asked.value)) == asked.value
            return begins
        case "ends":
            size = len(asked.value)
            cut = func.substr(field, func.length(field) - size + 1, size)
            return and_(func.length(field) >= size, cut == asked.value)
        case "=":
            return field == value
        case "<":
            return field < value
        case "<=":
            return field <= value
        case ">":
            return field > value
        case ">=":
            return field >= value
        case _:
            raise AssertionError(asked.test)


def order(sort: Sort) -> Any:
    """Returns an ORDER BY term."""
    by = column(sort.source).desc() if sort.descending else column(sort.source).asc()
    if not sort.nullable:
        return by
    return by.nulls_last() if sort.descending else by.nulls_first()


def after(sorts: Sequence[Sort], values: Sequence[Any]) -> ColumnElement[bool]:
    """Returns what holds for the items that come after the one with these values."""
    alternatives = []
    for number, (sort, value) in enumerate(zip(sorts, values, strict=True)):
        same = [_same(column(s.source), v) for s, v in zip(sorts[:number], values[:number], strict=True)]
        alternatives.append(and_(*same, _beyond(sort, value)))
    beyond = or_(*alternatives)
    first = sorts[0]
    if len(sorts) == 1 or first.nullable or values[0] is None:
        return beyond
    # Implied by the rest, but a condition on the first column alone lets the database start in its index.
    by = column(first.source)
    if first.descending:
        return and_(by <= _bound(by, values[0]), beyond)
    return and_(by >= _bound(by, values[0]), beyond)


def _same(field: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value is None:
        return field.is_(None)
    same: ColumnElement[bool] = field == _bound(field, value)
    return same


def _beyond(sort: Sort, value: Any) -> ColumnElement[bool]:
    field = column(sort.source)
    if value is None:
        return false() if sort.descending else field.is_not(None)
    bound = _bound(field, value)
    if not sort.descending:
        return field > bound
    return or_(field < bound, field.is_(None)) if sort.nullable else field < bound


def _bound(field: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
    """Returns the value as SQL. A number in a forged token may exceed the column's range, so numbers are compared as 64 bits."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return literal(value, BigInteger() if plain else field.type)
