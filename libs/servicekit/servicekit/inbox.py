"""The inbox: what makes an effect happen once although its event is delivered at least once."""

from __future__ import annotations

import time
from typing import Any, cast

from sqlalchemy import CursorResult, MetaData, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from servicekit.tables import add_inbox

_INBOX = add_inbox(MetaData())


def once(session: Session, consumer: str, event_id: str) -> bool:
    """Whether the event is new to this consumer; marks it in the same transaction.

    The effect goes into this transaction too. If the process dies before the commit, neither is there and
    the repeat does both; after it, both are, and the repeat finds the mark. Two transactions with one event
    wait for each other.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    marked = insert(_INBOX).values(
        consumer=consumer, event_id=event_id, processed_ms=time.time_ns() // 1_000_000
    )
    # RETURNING, not the row count: psycopg's is not set for an insert made this way.
    new = session.execute(marked.on_conflict_do_nothing().returning(_INBOX.c.event_id))
    return new.scalar_one_or_none() is not None


def prune(session: Session, consumer: str, older_than_hours: float) -> int:
    """Forget what `consumer` processed longer ago; returns how many. Safe beyond the retention of its topics."""
    before_ms = time.time_ns() // 1_000_000 - int(older_than_hours * 3_600_000)
    old = delete(_INBOX).where(_INBOX.c.consumer == consumer, _INBOX.c.processed_ms < before_ms)
    return cast("CursorResult[Any]", session.execute(old)).rowcount
