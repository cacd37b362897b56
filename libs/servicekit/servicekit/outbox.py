"""The outbox: how an event leaves a service exactly when its state change is committed.

`add` writes the event into the service's own database, in the transaction of the change. `OutboxPublisher`
moves committed rows to the event log and deletes them once they are durable there. A process that dies
between the two publishes again when it is back: the same `ce_id`, which the consumers' inbox knows. Nothing
is lost, nothing is effective twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Row, delete, event, func, insert, select
from sqlalchemy.orm import Session

from servicekit import backoff, crash, delivery_metrics, topics
from servicekit.eventlog.base import EventLog, OutRecord, Producer, check_sizes
from servicekit.events import Event, M, to_record
from servicekit.spans import sending
from servicekit.tables import add_outbox

logger = logging.getLogger(__name__)

_OUTBOX = add_outbox(MetaData())
_ADDED = "servicekit.outbox.added"  # in Session.info: the engine whose publisher is to wake after the commit
_PUBLISHERS: weakref.WeakSet[OutboxPublisher] = weakref.WeakSet()

_BATCH = 500
_LOOK_EVERY_S = 0.5
"""Bound on the delay when another process commits; one's own commits wake the publisher at once."""
_LAST_DRAIN_S = 5.0
"""How long a stopping publisher goes on to empty the outbox."""
_LEADER_LOCK = 0x6F7574626F78
"""PostgreSQL advisory lock of the one active publisher of a database ("outbox" in ASCII)."""
_WRITER_LOCKS = 0x6F757462
"""First half of the advisory locks by which writers of one key wait for each other ("outb")."""


def add(session: Session, event_: Event[M]) -> None:
    """Write the event in the caller's transaction; it is published after the commit, never before.

    Events of one (topic, key) are published in the order in which their transactions commit. SQLite has one
    writer at a time, so that is the order of `seq`. On PostgreSQL a number taken first may be committed
    last, so writers of one (topic, key) wait here until the other's transaction ends; transactions that
    write several keys should do so in one order (PostgreSQL ends a deadlock by an error: a conflict, to be
    run again).

    Raises RecordTooLarge when the event exceeds the event log's limit: better now than after the commit.
    """
    add_all(session, [event_])


def add_all(session: Session, events: Sequence[Event[M]]) -> None:
    """`add` for many events at once, in their order: one statement, for whoever writes in batches."""
    if not events:
        return
    records = [to_record(each) for each in events]
    check_sizes(records)
    bind = session.get_bind()
    if bind.dialect.name == "postgresql":
        for topic, key in sorted({(record.topic, record.key) for record in records}):
            # a signed integer of 32 bits
            key_hash = zlib.crc32(topic.encode() + b"\0" + key) - (1 << 31)
            session.execute(select(func.pg_advisory_xact_lock(_WRITER_LOCKS, key_hash)))
    created_ms = time.time_ns() // 1_000_000
    session.execute(
        insert(_OUTBOX),
        [
            {
                "event_id": each.id,
                "topic": record.topic,
                "key": record.key,
                "value": record.value,
                "headers": json.dumps([(name, value.decode()) for name, value in record.headers]),
                "created_ms": created_ms,
            }
            for each, record in zip(events, records, strict=True)
        ],
    )
    session.info[_ADDED] = bind.engine


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    """Wake the publishers of the database that was written to."""
    engine = session.info.pop(_ADDED, None)
    if engine is not None:
        for publisher in list(_PUBLISHERS):
            if publisher.serves(engine):
                publisher.notify()


class OutboxPublisher:
    """Publishes a database's outbox. One thread runs it; of several processes one is active at a time.

    States of a row: written (uncommitted, invisible here), committed, published (durable in the event log,
    still there), deleted. A kill between the last two publishes again.
    """

    def __init__(self, engine: Engine, event_log: EventLog) -> None:
        self._engine = engine
        self._event_log = event_log
        self._wake = threading.Event()
        self._known_topics: set[str] = set()
        _PUBLISHERS.add(self)

    def notify(self) -> None:
        """Look at the outbox now. Called by itself after commits of this process."""
        self._wake.set()

    def serves(self, engine: Engine) -> bool:
        """Whether this publisher drains the database behind `engine`."""
        return engine.pool is self._engine.pool

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop` is set, then what is left, for at most a few seconds. Never raises: it retries."""
        producer = self._event_log.producer()
        failures = 0
        try:
            while not stop.is_set():
                try:
                    with self._leading() as connection:
                        if connection is None:
                            stop.wait(_LOOK_EVERY_S)
                            continue
                        while not stop.is_set():
                            self._wake.clear()
                            if not self._publish_batch(connection, producer):
                                self._wake.wait(_LOOK_EVERY_S)
                            failures = 0
                except Exception:
                    failures += 1
                    delivery_metrics.OUTBOX_FAILURES.inc()
                    logger.exception("publishing from the outbox failed, trying again")
                    backoff.wait(stop, failures)
            self._publish_rest(producer)
        finally:
            producer.close()

    def _publish_rest(self, producer: Producer) -> None:
        deadline = time.monotonic() + _LAST_DRAIN_S
        try:
            with self._leading() as connection:
                while connection is not None and time.monotonic() < deadline:
                    if not self._publish_batch(connection, producer):
                        return
        except Exception:
            # Committed rows stay where they are: the next start publishes them.
            logger.exception("publishing from the outbox failed while stopping")

    def _publish_batch(self, connection: Connection, producer: Producer) -> int:
        """Publish the oldest rows and delete them; returns how many there were."""
        with connection.begin():
            rows = connection.execute(select(_OUTBOX).order_by(_OUTBOX.c.seq).limit(_BATCH)).all()
        age_s = time.time() - rows[0].created_ms / 1000 if rows else 0.0
        delivery_metrics.OUTBOX_OLDEST_S.set(max(0.0, age_s))
        if not rows:
            return 0
        records = [_record(row) for row in rows]
        self._ensure_topics({record.topic for record in records})
        with sending(self._event_log.system, records):
            producer.send(records)
        # By number, not "up to the last": on PostgreSQL a lower number may be committed only now.
        with crash.step("delete"), connection.begin():
            connection.execute(delete(_OUTBOX).where(_OUTBOX.c.seq.in_([row.seq for row in rows])))
        for record in records:
            delivery_metrics.OUTBOX_PUBLISHED.labels(record.topic).inc()
        return len(rows)

    def _ensure_topics(self, names: set[str]) -> None:
        """Make topics of the registry at their first use, so that no service depends on another's start."""
        if new := names - self._known_topics:
            self._event_log.ensure_topics([topics.BY_NAME[name] for name in new if name in topics.BY_NAME])
            self._known_topics |= new

    def _leading(self) -> AbstractContextManager[Connection | None]:
        """A connection to publish by, or None while another process publishes: two would disturb the order."""
        postgresql = self._engine.dialect.name == "postgresql"
        return _leading_postgresql(self._engine) if postgresql else _leading_sqlite(self._engine)


@contextmanager
def _leading_postgresql(engine: Engine) -> Iterator[Connection | None]:
    """The lock belongs to the very connection that reads and deletes: lost with it, it stops the publisher too."""
    # READ COMMITTED: nothing here needs a snapshot, and a serialisable reader would make the service's
    # writers fail.
    with engine.execution_options(isolation_level="READ COMMITTED").connect() as connection:
        with connection.begin():
            leads = connection.execute(select(func.pg_try_advisory_lock(_LEADER_LOCK))).scalar_one()
        try:
            yield connection if leads else None
        except BaseException:
            connection.invalidate()  # closes it, which gives the lock back whatever state it is in
            raise
        if leads:
            with connection.begin():
                connection.execute(select(func.pg_advisory_unlock(_LEADER_LOCK)))


@contextmanager
def _leading_sqlite(engine: Engine) -> Iterator[Connection | None]:
    """A lock on a file beside the database, which the kernel gives back when the process dies."""
    path = Path(engine.url.database or "")
    with path.with_name(path.name + ".outbox-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # DEFERRED: looking whether there is something must not wait for the service's writers.
        with engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
            yield connection


def _record(row: Row[Any]) -> OutRecord:
    headers = tuple((name, text.encode()) for name, text in json.loads(row.headers))
    return OutRecord(topic=row.topic, key=row.key, value=row.value, headers=headers)
