"""The tables that every service's database has: `outbox` (events to publish), `inbox` (events that were processed), and
`database_identity` (an id of the database).

Every service has them in its own database, so that a state change and its event, or an effect and its inbox row, are one
transaction. `servicekit.database.new_base()` adds them to the service's metadata; a migration
creates them like any other table.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

# SQLite gives rowids, and AUTOINCREMENT, only to a column declared exactly INTEGER.
_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")


def add_outbox(metadata: MetaData) -> Table:
    """Adds the `outbox` table: events that are committed with their state change and not yet in the event log.

    seq         order of writing; for one (topic, key) also the order of commits (see `servicekit.delivery.outbox.add`)
    event_id    ce_id, fixed when the event is made: it stays the same when the event is published again
    topic, key  the destination; key holds the bytes of the partitioning key
    value       protobuf bytes of the message
    headers     JSON list of [name, text] pairs: the ce_* headers and traceparent
    created_ms  Unix time of writing in milliseconds, for the age of the oldest unpublished event
    """
    return Table(
        "outbox",
        metadata,
        Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        Column("event_id", String(64), nullable=False, unique=True),
        Column("topic", String(249), nullable=False),
        Column("key", LargeBinary, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("headers", Text, nullable=False),
        Column("created_ms", BigInteger, nullable=False),
        # Rows are deleted once published: without AUTOINCREMENT an emptied table would hand out old numbers again.
        sqlite_autoincrement=True,
    )


def add_inbox(metadata: MetaData) -> Table:
    """Adds the `inbox` table: the events that each consumer of this service has processed.

    consumer      the consumer group's name
    event_id      ce_id of the event
    processed_ms  Unix time in milliseconds; rows older than the topics' retention can be pruned
    """
    return Table(
        "inbox",
        metadata,
        Column("consumer", String(200), primary_key=True),
        Column("event_id", String(64), primary_key=True),
        Column("processed_ms", BigInteger, nullable=False),
        Index("inbox_by_age", "processed_ms"),
    )


def add_identity(metadata: MetaData) -> Table:
    """Adds the `database_identity` table: one row, written when the identity is first needed.

    only_row  always 1
    id        a ULID that no other database has; it stays the same when the database moves (`servicekit.objects.references`)
    """
    return Table(
        "database_identity",
        metadata,
        Column("only_row", Integer, primary_key=True, autoincrement=False),
        Column("id", String(26), nullable=False),
    )
