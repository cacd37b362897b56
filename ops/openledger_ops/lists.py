"""The lists that operators read from the event log and the object store, by the same rules as those of the APIs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from servicekit.delivery.redrive import DeadLetter
from servicekit.lists import BOOLEAN, INTEGER, TEXT, TIME, Field, Listing, Page, Query
from servicekit.objects.references import Published

T = TypeVar("T")

_ALL = 1 << 30
"""Items of a page: there is one page, read on this machine."""


def _refused_at(letter: DeadLetter) -> datetime | None:
    try:
        found = datetime.fromisoformat(letter.time)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


DEAD_LETTERS = Listing(
    fields={
        "topic": Field(lambda letter: letter.topic, TEXT),
        "dlq_offset": Field(lambda letter: letter.record.offset, INTEGER),
        "reason": Field(lambda letter: letter.reason, TEXT),
        "detail": Field(lambda letter: letter.detail, TEXT),
        "group": Field(lambda letter: letter.group, TEXT),
        "time": Field(_refused_at, TIME),
        "partition": Field(lambda letter: letter.partition, INTEGER),
        "offset": Field(lambda letter: letter.offset, INTEGER),
        "event_id": Field(lambda letter: letter.event_id, TEXT),
        "event_type": Field(lambda letter: letter.event_type, TEXT),
        "key": Field(lambda letter: letter.record.key.decode(errors="replace"), TEXT),
        "redriven": Field(lambda letter: bool(letter.redrives), BOOLEAN, sortable=False),
    },
    key=[lambda letter: letter.record.topic, lambda letter: letter.record.offset],
    default_page_size=_ALL,
    max_page_size=_ALL,
)
REFERENCES = Listing(
    fields={
        "name": Field(lambda published: published.name, TEXT),
        "time": Field(lambda published: published.time, TIME),
        "objects": Field(lambda published: len(published.digests), INTEGER),
        "pinned": Field(lambda published: published.time is None, BOOLEAN, sortable=False),
    },
    key=[lambda published: published.name],
    default_page_size=_ALL,
    max_page_size=_ALL,
)


def letters(items: Iterable[DeadLetter], *, filter: str, order_by: str, limit: int) -> Page[DeadLetter]:
    """Returns the first `limit` dead letters (0: all) that the filter names. Raises InvalidArgument."""
    return _page(DEAD_LETTERS, items, filter, order_by, limit)


def references(items: Iterable[Published], *, filter: str, order_by: str, limit: int) -> Page[Published]:
    """Returns the first `limit` lists of references (0: all) that the filter names. Raises InvalidArgument."""
    return _page(REFERENCES, items, filter, order_by, limit)


def _page(listing: Listing, items: Iterable[T], filter: str, order_by: str, limit: int) -> Page[T]:
    query = Query(filter=filter, order_by=order_by, page_size=limit)
    return listing.page_of(items, query, bytes_of=lambda _: 0)
