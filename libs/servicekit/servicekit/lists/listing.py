"""The declaration of a list: its fields and its key. It reads pages of the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import InvalidOperation
from typing import Any, Generic, TypeVar, overload

from sqlalchemy import ColumnElement, Row, Select, UnaryExpression, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql import operators

from servicekit.errors import InvalidArgument
from servicekit.lists import _filter, _memory, _sql, _tokens
from servicekit.lists._match import unknown_field
from servicekit.lists._sort import Sort
from servicekit.lists.kinds import Kind
from servicekit.lists.query import ListRequest, Query

T = TypeVar("T")

Source = ColumnElement[Any] | InstrumentedAttribute[Any] | Callable[[Any], Any]
"""The source of a value: a column (or an SQL expression); for lists in memory a function of the item."""

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 3_000_000
"""Below gRPC's limit of 4 MiB for a message; the rest is for framing and for fields that are not measured."""
MAX_SORT_FIELDS = 5
_MAX_ORDER_CHARS = 256
_FETCH = 50


@dataclass(frozen=True)
class Field:
    """A field that callers may filter by, and sort by unless `sortable` is false."""

    source: Source
    kind: Kind
    sortable: bool = True


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page: its items, the token of the next page ("" for none), and the number of items on all pages."""

    items: Sequence[T]
    next_page_token: str
    total_size: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A list of an API.

    Attributes:
        fields: by the name that callers write, `state` or `snapshot.name`.
        key: the columns that identify an item, and the default order: `[Run.id.desc()]`. Never NULL, and unique within
            every list that is read (ids, or parent and number).
        default_page_size: for a request without a size.
        max_page_size: also for a request with a larger size (AIP-158).
    """

    fields: Mapping[str, Field]
    key: Sequence[Source | UnaryExpression[Any]]
    default_page_size: int = DEFAULT_PAGE_SIZE
    max_page_size: int = MAX_PAGE_SIZE
    _key: tuple[Sort, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("a list needs a key, or pages could repeat items")
        object.__setattr__(self, "_key", tuple(_sort(source) for source in self.key))

    @overload
    def page(
        self,
        session: Session,
        statement: Select[tuple[T]],
        request: ListRequest,
        *,
        bytes_of: Callable[[T], int],
    ) -> Page[T]: ...
    @overload
    def page(
        self,
        session: Session,
        statement: Select[Any],
        request: ListRequest,
        *,
        bytes_of: Callable[[Any], int],
    ) -> Page[Any]: ...
    def page(
        self,
        session: Session,
        statement: Select[Any],
        request: ListRequest,
        *,
        bytes_of: Callable[[Any], int],
    ) -> Page[Any]:
        """Returns the page of `statement` that the request asks for.

        `statement` selects and filters. It must not have its own order, limit, grouping or DISTINCT (put those into a subquery).
        The items of a statement with several entities or columns are tuples. `bytes_of` returns a bound for an item's size in a
        response: a page ends before its items together exceed `MAX_PAGE_BYTES`, so that it fits into one message. An item that
        alone is larger is a page of its own.

        Raises:
            InvalidArgument: the request's filter, order_by, page_size or page_token is wrong.
        """
        asked = Query.of(request)
        size, sorts, condition = self._read(asked)
        if condition is not None:
            statement = statement.where(_sql.condition(condition, self.fields, asked.filter))
        position = self._position(asked, sorts)
        if position is None:
            counted = session.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
        else:
            counted = position.total
            statement = statement.where(_sql.after(sorts, position.after))
        columns = [_sql.column(sort.source).label(f"sort_{number}") for number, sort in enumerate(sorts)]
        statement = statement.add_columns(*columns).order_by(*map(_sql.order, sorts)).limit(size + 1)
        statement = statement.execution_options(yield_per=_FETCH)
        rows = session.execute(statement)
        try:
            pairs = (_split(row, len(sorts)) for row in rows)
            return _cut(pairs, size, bytes_of, lambda after: self._token(asked, after, counted), counted)
        finally:
            rows.close()

    def page_of(self, items: Iterable[T], request: ListRequest, *, bytes_of: Callable[[T], int]) -> Page[T]:
        """Returns the page of a list in memory, by the same rules as `page`.

        Raises:
            InvalidArgument: as `page`.
        """
        asked = Query.of(request)
        size, sorts, condition = self._read(asked)
        found = list(items)
        if condition is not None:
            matches = _memory.condition(condition, self.fields, asked.filter)
            found = [item for item in found if matches(item)]
        position = self._position(asked, sorts)
        counted = len(found) if position is None else position.total
        keyed = _memory.ordered(found, sorts)
        if position is not None:
            try:
                keyed = [pair for pair in keyed if _memory.is_after(pair[1], position.after, sorts)]
            except (
                TypeError,
                InvalidOperation,
            ):  # values of another type: the token is forged
                raise _tokens.wrong(asked.page_token) from None
        return _cut(keyed, size, bytes_of, lambda after: self._token(asked, after, counted), counted)

    def _read(self, asked: Query) -> tuple[int, tuple[Sort, ...], _filter.Node | None]:
        if asked.page_size < 0:
            raise InvalidArgument(
                "page_size", "page_size", f"must be 0 to {self.max_page_size}", asked.page_size
            )
        size = min(asked.page_size or self.default_page_size, self.max_page_size)
        return size, self._sorts(asked.order_by), _filter.parse(asked.filter)

    def _sorts(self, order_by: str) -> tuple[Sort, ...]:
        """Returns the requested order, made unique by the key."""
        if len(order_by) > _MAX_ORDER_CHARS:
            raise _wrong_order(
                f"has {len(order_by)} characters; at most {_MAX_ORDER_CHARS} are allowed", order_by
            )
        asked: dict[str, Sort] = {}
        for part in order_by.split(",") if order_by.strip() else []:
            words = part.split()
            if not 1 <= len(words) <= 2 or words[1:] not in ([], ["asc"], ["desc"]):
                message = (
                    f'{part.strip()!r} must be a field, or a field and "desc", as in "{self._example()}"'
                )
                raise _wrong_order(message, order_by)
            name = words[0]
            if name in asked:
                raise _wrong_order(f"{name} appears twice", order_by)
            known = self.fields.get(name)
            if known is None or not known.sortable:
                sortable = [other for other, declared in self.fields.items() if declared.sortable]
                raise _wrong_order(unknown_field("cannot sort by", name, sortable), order_by)
            asked[name] = Sort(known.source, words[1:] == ["desc"], _sql.nullable(known.source))
        if len(asked) > MAX_SORT_FIELDS:
            raise _wrong_order(f"names {len(asked)} fields; at most {MAX_SORT_FIELDS} are allowed", order_by)
        return (*asked.values(), *self._key)

    def _example(self) -> str:
        name = next((name for name, declared in self.fields.items() if declared.sortable), "create_time")
        return f"{name} desc"

    def _position(self, asked: Query, sorts: Sequence[Sort]) -> _tokens.Position | None:
        if not asked.page_token:
            return None
        position = _tokens.decode(asked.page_token, asked.digest(), len(sorts))
        for value, sort in zip(position.after, sorts, strict=True):
            _tokens.check_type(value, _sql.python_type(sort.source), asked.page_token)
        return position

    def _token(self, asked: Query, after: tuple[Any, ...], total: int) -> str:
        return _tokens.encode(_tokens.Position(after, total), asked.digest())


def _wrong_order(message: str, order_by: str) -> InvalidArgument:
    return InvalidArgument("order_by", "order_by", message, order_by)


def _sort(source: Source | UnaryExpression[Any]) -> Sort:
    if isinstance(source, UnaryExpression) and source.modifier in (operators.desc_op, operators.asc_op):
        return Sort(source.element, source.modifier is operators.desc_op, False)
    return Sort(source, False, False)


def _split(row: Row[Any], width: int) -> tuple[Any, tuple[Any, ...]]:
    """Returns an item and its sort values."""
    values = tuple(row)
    item, after = values[:-width], values[-width:]
    return (item[0] if len(item) == 1 else item), after


def _cut(
    pairs: Iterable[tuple[T, tuple[Any, ...]]],
    size: int,
    bytes_of: Callable[[T], int],
    token: Callable[[tuple[Any, ...]], str],
    total: int,
) -> Page[T]:
    """Returns as many items as fit, at least one, and a token when more items follow."""
    taken: list[T] = []
    last: tuple[Any, ...] = ()
    total_bytes = 0
    for item, after in pairs:
        total_bytes += bytes_of(item)
        if taken and (len(taken) == size or total_bytes > MAX_PAGE_BYTES):
            return Page(taken, token(last), total)
        taken.append(item)
        last = after
    return Page(taken, "", total)
