"""Facts that every service has: its database, its consumers, its inbox and its outbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.audit.v1.audit_pb2 import Database, Fact, InboxEvents, OutboxEvent
from sqlalchemy import MetaData, select
from sqlalchemy.orm import Session

from servicekit.audit.declared import Declared
from servicekit.database.tables import add_identity, add_inbox, add_outbox

ROWS = 500
"""Rows fetched at a time, and event ids in one fact about the inbox."""

_METADATA = MetaData()
_IDENTITY, _INBOX, _OUTBOX = add_identity(_METADATA), add_inbox(_METADATA), add_outbox(_METADATA)


def stamp(time: datetime) -> Timestamp:
    """Returns a time as a protobuf message."""
    made = Timestamp()
    made.FromDatetime(time)
    return made


def of_database(session: Session, declared: Declared) -> Iterator[Fact]:
    """Yields every fact that comes from the database: the shared ones, then the service's own."""
    identity = session.scalar(select(_IDENTITY.c.id))
    if identity is not None:
        yield Fact(database=Database(id=identity))
    yield from _outbox(session)
    yield from declared.facts(session)
    # Last, because it is the longest. The order does not matter: all of these come from one snapshot.
    yield from _inbox(session)


def _outbox(session: Session) -> Iterator[Fact]:
    query = select(_OUTBOX).order_by(_OUTBOX.c.seq)
    for row in session.execute(query, execution_options={"yield_per": ROWS}):
        event_type = dict(json.loads(row.headers)).get("ce_type", "")
        yield Fact(
            outbox_event=OutboxEvent(
                event_id=row.event_id, topic=row.topic, event_type=event_type, value=row.value
            )
        )


def _inbox(session: Session) -> Iterator[Fact]:
    query = select(_INBOX.c.consumer, _INBOX.c.event_id).order_by(_INBOX.c.consumer, _INBOX.c.event_id)
    for rows in session.execute(query, execution_options={"yield_per": ROWS}).partitions():
        for group, of_group in groupby(rows, key=lambda row: str(row.consumer)):
            yield Fact(inbox_events=InboxEvents(group=group, event_ids=[row.event_id for row in of_group]))
