"""The inbox: makes each event take effect once, although it is delivered at least once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, MetaData, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from servicekit.database.tables import add_inbox

_INBOX = add_inbox(MetaData())


def once(session: Session, consumer: str, event_id: str) -> bool:
    """Returns whether the event is new to this consumer, and inserts its inbox row.

    The caller makes the effect in the same transaction. If the process dies before the commit, neither the row nor the effect
    exists, and the repeat makes both. After the commit both exist, and the repeat finds the row. Two transactions with the
    same event wait for each other.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    marked = insert(_INBOX).values(
        consumer=consumer, event_id=event_id, processed_ms=time.time_ns() // 1_000_000
    )
    # RETURNING, not the row count: psycopg's is not set for an insert made this way.
    new = session.execute(marked.on_conflict_do_nothing().returning(_INBOX.c.event_id))
    return new.scalar_one_or_none() is not None


def once_each(session: Session, consumer: str, event_ids: Sequence[str]) -> set[str]:
    """Returns which of the events are new to this consumer, and inserts their inbox rows, like `once` for one event."""
    if not event_ids:
        return set()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    processed_ms = time.time_ns() // 1_000_000
    rows = [
        {"consumer": consumer, "event_id": event_id, "processed_ms": processed_ms}
        for event_id in sorted(
            set(event_ids)
        )  # in one order, so that two transactions wait and do not deadlock
    ]
    marked = insert(_INBOX).on_conflict_do_nothing().returning(_INBOX.c.event_id)
    return set(session.execute(marked, rows).scalars())


def prune(session: Session, consumer: str, older_than_hours: float) -> int:
    """Deletes the rows of events that `consumer` processed longer ago, and returns how many.

    Safe for ages beyond the retention of its topics: such events cannot be delivered again.
    """
    before_ms = time.time_ns() // 1_000_000 - int(older_than_hours * 3_600_000)
    old = delete(_INBOX).where(_INBOX.c.consumer == consumer, _INBOX.c.processed_ms < before_ms)
    return cast("CursorResult[Any]", session.execute(old)).rowcount
