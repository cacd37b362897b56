"""Lists: filters, orders, pages and totals, with one meaning on SQLite, on PostgreSQL and in memory."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openledger.datanet.v1 import datanet_pb2
from sqlalchemy import Engine, LargeBinary, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from identity.names import InferenceName, SnapshotName
from servicekit.database import UtcDateTime, engine, new_metadata, reading, transaction
from servicekit.errors import InvalidArgument
from servicekit.lists import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    TEXT,
    TIME,
    Field,
    Listing,
    Page,
    Query,
    choices,
    enum,
    numbered,
    resource,
)

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


class Base(DeclarativeBase):
    metadata = new_metadata()


class Book(Base):
    __tablename__ = "books"
    shelf: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    state: Mapped[int]
    pages: Mapped[int | None]
    price: Mapped[float | None]
    lent: Mapped[bool]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    bought: Mapped[datetime | None] = mapped_column(UtcDateTime)


BOOKS = Listing(
    fields={
        "title": Field(Book.title, TEXT),
        "state": Field(Book.state, choices({"NEW": 1, "READ": 2, "LOST": 3})),
        "pages": Field(Book.pages, INTEGER),
        "price": Field(Book.price, NUMBER),
        "lent": Field(Book.lent, BOOLEAN),
        "bought.time": Field(Book.bought, TIME),
        "digest": Field(Book.digest, TEXT, sortable=False),
    },
    key=[Book.shelf, Book.number.desc()],
)


def book(shelf: str, number: int, title: str = "", **other: Any) -> Book:
    return Book(
        shelf=shelf,
        number=number,
        title=title,
        state=other.get("state", 1),
        pages=other.get("pages"),
        price=other.get("price"),
        lent=other.get("lent", False),
        digest=bytes([number]),
        bought=other.get("bought"),
    )


def some_books() -> list[Book]:
    draw = random.Random(7)
    titles = ["Emma", "emma", "Em%ma", "Middlemarch", "a*b", 'say "no"', "ünder", ""]
    return [
        book(
            draw.choice("abc"),
            number,
            draw.choice(titles),
            state=draw.choice([1, 2, 3]),
            pages=draw.choice([None, 0, 7, 300]),
            price=draw.choice([None, 0.5, 2.25]),
            lent=draw.random() < 0.5,
            bought=draw.choice([None, MONDAY, MONDAY + timedelta(days=1)]),
        )
        for number in range(60)
    ]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def library(request: pytest.FixtureRequest, databases: Any) -> Iterator[Engine]:
    with databases.empty(request.param) as url:
        made = engine(url)
        Base.metadata.create_all(made)
        with transaction(made) as session:
            session.add_all(some_books())
        yield made
        made.dispose()


IN_MEMORY = some_books()

List = Callable[[Query], Page[Book]]


@pytest.fixture
def in_database(library: Engine) -> List:
    def page(query: Query) -> Page[Book]:
        with reading(library) as session:
            return BOOKS.page(session, select(Book), query, bytes_of=lambda each: 100)

    return page


def in_memory(query: Query) -> Page[Book]:
    return BOOKS.page_of(IN_MEMORY, query, bytes_of=lambda each: 100)


def names(books: Any) -> list[tuple[str, int]]:
    return [(each.shelf, each.number) for each in books]


def walk(page: List, query: Query) -> list[tuple[str, int]]:
    """Every item, page by page; the total is the same on each."""
    found: list[tuple[str, int]] = []
    totals = set()
    while True:
        answer = page(query)
        assert len(answer.items) <= query.page_size
        found += names(answer.items)
        totals.add(answer.total_size)
        if not answer.next_page_token:
            assert totals == {len(found)}
            return found
        query = replace(query, page_token=answer.next_page_token)


TEXTS = st.sampled_from(
    ["Emma", "*mma", "Em*", "*", "*dd*", "", "%", "_", 'say \\"no\\"', "ün*", "a\\*b", "*\\*b"]
)
RESTRICTIONS = st.one_of(
    [
        st.builds('title {} "{}"'.format, st.sampled_from(["=", "!=", ":"]), TEXTS),
        st.builds('title {} "{}"'.format, st.sampled_from(["=", "!=", ":"]), TEXTS),
        st.builds("state {} {}".format, st.sampled_from(["=", "!="]), st.sampled_from(["NEW", "READ", "*"])),
        st.builds(
            "pages {} {}".format,
            st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
            st.sampled_from(["-1", "0", "7", "9223372036854775807"]),
        ),
        st.builds(
            "price{}{}".format, st.sampled_from(["=", "!=", "<", ">="]), st.sampled_from(["0.5", "2", "1e3"])
        ),
        st.builds("lent = {}".format, st.sampled_from(["true", "false"])),
        st.sampled_from(
            [
                "bought.time:*",
                'bought.time > "2026-03-02T00:00:00Z"',
                'bought.time <= "2026-03-03T02:00:00+02:00"',
            ]
        ),
    ]
)
FILTERS = st.recursive(
    RESTRICTIONS,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT {}".format, inner.map(lambda text: text if text.startswith("(") else f"({text})")),
        st.builds("-({})".format, inner),
    ),
    max_leaves=6,
)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["state", "pages", "price", "lent", "bought.time"]), st.sampled_from(["", " desc"])
    ),
    max_size=3,
    unique_by=lambda term: term[0],
).map(lambda terms: ", ".join(name + way for name, way in terms))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(FILTERS, ORDERS, st.sampled_from([7, 25]))
def test_any_filter_and_order_means_the_same_in_every_place_and_loses_nothing_between_pages(
    in_database: List, filter_: str, order_by: str, page_size: int
) -> None:
    whole = names(in_memory(Query(filter=filter_, order_by=order_by, page_size=1000)).items)
    query = Query(filter=filter_, order_by=order_by, page_size=page_size)
    assert walk(in_database, query) == walk(in_memory, query) == whole


@settings(max_examples=60)
@given(FILTERS)
def test_a_filter_and_its_opposite_share_the_list_between_them(filter_: str) -> None:
    held = in_memory(Query(filter=filter_)).total_size
    assert held + in_memory(Query(filter=f"NOT ({filter_})")).total_size == 60


def test_or_binds_tighter_than_and() -> None:
    tight = in_memory(Query(filter="lent = true AND state = NEW OR state = READ"))
    assert names(tight.items) == names(
        in_memory(Query(filter="lent = true AND (state = NEW OR state = READ)")).items
    )
    assert (
        tight.total_size < in_memory(Query(filter="(lent = true AND state = NEW) OR state = READ")).total_size
    )


def test_text_is_compared_with_case_and_without_the_meaning_that_sql_gives_to_percent(
    in_database: List,
) -> None:
    for filter_, expected in {
        'title = "Emma"': {"Emma"},
        'title = "*mma"': {"Emma", "emma"} | {"Em%ma"} - {"Em%ma"},
        'title : "%"': {"Em%ma"},
        'title = "Em*"': {"Emma", "Em%ma"},
        'title : "\\""': {'say "no"'},
        "title = 'say \"no\"'": {'say "no"'},
        'title = "a\\*b"': {"a*b"},
        "title = Middlemarch": {"Middlemarch"},
    }.items():
        assert {each.title for each in in_database(Query(filter=filter_)).items} == expected, filter_


def test_items_added_and_removed_meanwhile_neither_repeat_nor_hide_others() -> None:
    before = [book("a", number) for number in (9, 7, 5, 3)]
    first = BOOKS.page_of(before, Query(page_size=2), bytes_of=lambda each: 100)
    assert names(first.items) == [("a", 9), ("a", 7)]
    after = [book("a", number) for number in (10, 9, 8, 6, 5, 3)]  # 7, the last one seen, is gone
    rest = BOOKS.page_of(
        after, Query(page_size=9, page_token=first.next_page_token), bytes_of=lambda each: 100
    )
    assert names(rest.items) == [("a", 6), ("a", 5), ("a", 3)]
    assert rest.total_size == first.total_size == 4


def refused(query: Query, field: str) -> str:
    with pytest.raises(InvalidArgument) as error:
        in_memory(query)
    (violation,) = error.value.violations
    assert violation.field == field
    return violation.message


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ("stat = NEW", "cannot filter by 'stat'; did you mean state? the fields are title, state, pages"),
        ("state = OLD", "state is compared with 'OLD'; it must be one of NEW, READ, LOST"),
        ("state > NEW", "state can be compared with = and !=, not with >"),
        ("pages = many", "pages is compared with 'many'; it must be a whole number such as 3"),
        ("pages = 9223372036854775808", "must be a whole number"),
        ("pages = ٣", "must be a whole number"),
        ('bought.time > "2026-01-01T00:00:00"', "it must be an RFC 3339 time with its zone"),
        ("bought.time > 2026-01-01T00:00:00Z", "the value before ':' at character 28 must be in quotes"),
        ("pages > *", "* is only allowed with =, != and :"),
        ("Emma", "Emma at character 1 is alone; write a field, an operator and a value"),
        ("contains(title)", "function 'contains' at character 1 is not supported"),
        ("state = NEW AND", "expected a field's name at character 16, found the end"),
        ("(state = NEW", "expected ')' at character 13, found the end"),
        ("state = NEW)", "expected AND, OR or the end at character 12, found ')'"),
        ("state = ", "expected a value at character 9, found the end"),
        ('title = "Emma', "the quote at character 9 is not closed"),
        ("title = a\0", "holds a NUL character"),
        ("(" * 21 + "state = NEW" + ")" * 21, "more than 20 parentheses inside each other"),
        ("lent = true " * 51, "more than 50 comparisons"),
        ("x" * 1025, "has 1025 characters; at most 1024 are allowed"),
    ],
)
def test_a_wrong_filter_is_refused_with_what_would_be_right(filter_: str, message: str) -> None:
    assert message in refused(Query(filter=filter_), "filter")


@pytest.mark.parametrize(
    ("order_by", "message"),
    [
        ("title down", '\'title down\' must be a field, or a field and "desc", as in "title desc"'),
        ("title,", "'' must be a field"),
        ("titel", "cannot sort by 'titel'; did you mean title?"),
        ("digest", "cannot sort by 'digest'; "),
        ("title, title desc", "title appears twice"),
        ("x" * 257, "has 257 characters; at most 256 are allowed"),
    ],
)
def test_a_wrong_order_is_refused_with_what_would_be_right(order_by: str, message: str) -> None:
    assert message in refused(Query(order_by=order_by), "order_by")


def test_a_page_has_a_size_within_bounds() -> None:
    assert "must be 0 to 1000" in refused(Query(page_size=-1), "page_size")
    many = [book("a", number % 100) for number in range(1500)]
    unique = Listing(fields={}, key=[lambda pair: pair[0]])
    assert len(BOOKS.page_of(many, Query(), bytes_of=lambda each: 100).items) == 100
    assert (
        len(unique.page_of(enumerate(many), Query(page_size=5000), bytes_of=lambda each: 100).items) == 1000
    )


def test_a_page_of_long_items_ends_where_a_message_would_be_full(in_database: List, library: Engine) -> None:
    with reading(library) as session:
        page = BOOKS.page(session, select(Book), Query(page_size=50), bytes_of=lambda each: 1_100_000)
        long = BOOKS.page(session, select(Book), Query(page_size=50), bytes_of=lambda each: 9_000_000)
    assert (len(page.items), len(long.items)) == (2, 1)
    assert names(page.items) == names(in_database(Query(page_size=2)).items)
    assert page.next_page_token == in_database(Query(page_size=2)).next_page_token


def test_a_token_belongs_to_its_request() -> None:
    first = in_memory(Query(filter="lent = true", page_size=2))
    token = first.next_page_token
    other = "belongs to a request with another filter, order_by or parent"
    assert other in refused(Query(filter="lent = false", page_token=token), "page_token")
    assert other in refused(Query(filter="lent = true", order_by="title", page_token=token), "page_token")
    assert other in refused(Query(filter="lent = true", scope="x", page_token=token), "page_token")
    assert in_memory(Query(filter="lent = true", page_size=9, page_token=token)).items


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_a_token_from_elsewhere_is_refused(token: str) -> None:
    if token:
        assert "must be the next_page_token" in refused(Query(page_token=token), "page_token")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["time", "bytes", "decimal", "x"]), inner)
    ),
    max_leaves=4,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(JSON, min_size=4, max_size=4), st.integers())
@example([None, False, None, None], 0)
def test_a_forged_token_is_refused_or_gives_a_page_and_never_an_error_of_the_database(
    in_database: List, after: list[Any], total: int
) -> None:
    query = Query(order_by="pages, bought.time")
    state = {"d": query.digest(), "a": after, "t": total}
    token = base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")
    with contextlib.suppress(InvalidArgument):
        in_database(replace(query, page_token=token))


def test_an_enum_is_written_with_or_without_its_prefix_and_a_name_as_what_is_stored() -> None:
    state = enum(datanet_pb2.RecordState)
    number = datanet_pb2.RECORD_STATE_ACCEPTED
    assert (
        state.parse("ACCEPTED") == state.parse("RECORD_STATE_ACCEPTED") == state.parse("accepted") == number
    )
    assert choices({"READ": 2}).parse("Read") == 2
    assert state.form == "one of PENDING, ACCEPTED, REJECTED, WITHDRAWN"
    assert resource(SnapshotName, lambda name: name.snapshot).parse("datanets/a/snapshots/3") == 3
    with pytest.raises(ValueError):  # beyond what a database stores
        numbered(SnapshotName, lambda name: name.snapshot).parse(f"datanets/a/snapshots/{1 << 63}")
    assert resource(InferenceName).form.startswith("the name of an inference: ")


def test_a_list_in_memory_may_read_its_items_by_functions() -> None:
    pairs = [("b", 1), ("a", 2), ("c", None)]
    by_name = Listing(
        fields={"name": Field(lambda pair: pair[0], TEXT), "count": Field(lambda pair: pair[1], INTEGER)},
        key=[lambda pair: pair[0]],
    )
    assert by_name.page_of(pairs, Query(order_by="count desc"), bytes_of=lambda each: 100).items == [
        ("a", 2),
        ("b", 1),
        ("c", None),
    ]
    assert by_name.page_of(pairs, Query(filter="NOT count > 1"), bytes_of=lambda each: 100).items == [
        ("b", 1),
        ("c", None),
    ]
