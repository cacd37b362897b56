"""The outbox: publishes an event if, and only if, its state change is committed.

`add` writes the event into the service's own database, in the transaction of the change. `OutboxPublisher` sends committed
rows to the event log, and deletes them once they are durable there. A process that dies between the two publishes the rows
again after its restart, with the same `ce_id`, which the consumers' inboxes know. No event is lost, and none takes effect
twice.
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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Row, Select, delete, event, func, insert, select
from sqlalchemy.orm import Session

from servicekit import crash, private, retries
from servicekit.database.tables import add_outbox
from servicekit.deadlines import LEADER_IDLE_S, milliseconds
from servicekit.delivery import metrics as delivery_metrics
from servicekit.eventlog.base import EventLog, OutRecord, Producer, check_sizes
from servicekit.eventlog.events import Event, M, to_record
from servicekit.eventlog.existing_topics import ExistingTopics
from servicekit.heartbeats import Heartbeat
from servicekit.telemetry.spans import sending

logger = logging.getLogger(__name__)

_OUTBOX = add_outbox(MetaData())
_ADDED = (
    "servicekit.delivery.outbox.added"  # in Session.info: the engine whose publishers wake after the commit
)
_PUBLISHERS: weakref.WeakSet[OutboxPublisher] = weakref.WeakSet()

_BATCH = 500
_POLL_EVERY_S = 0.5
"""Largest delay of events that another process commits. Commits of this process wake the publisher at once."""
_LAST_DRAIN_S = 5.0
"""How long a stopping publisher continues to empty the outbox."""
_LEADER_LOCK = 0x6F7574626F78
"""PostgreSQL advisory lock of the one active publisher of a database ("outbox" in ASCII)."""
_WRITER_LOCKS = 0x6F757462
"""First half of the advisory locks that writers of one key take ("outb" in ASCII)."""


def add(session: Session, event_: Event[M]) -> None:
    """Writes the event in the caller's transaction. It is published after the commit, never before.

    Events of one (topic, key) are published in the order in which their transactions commit. SQLite has one writer at a time,
    so that is the order of `seq`. In PostgreSQL a lower number may be committed later, so a writer of a (topic, key) waits
    here until another writer's transaction ends. Transactions that write several keys should always use the same order:
    PostgreSQL ends a deadlock with an error, which is a conflict and is run again.

    Raises RecordTooLarge when the event exceeds the event log's limit, before the commit rather than after it.
    """
    add_all(session, [event_])


def add_all(session: Session, events: Sequence[Event[M]]) -> None:
    """Writes many events in their order, like `add`, in one statement."""
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
    """Wakes the publishers of the database that was written to."""
    engine = session.info.pop(_ADDED, None)
    if engine is not None:
        for publisher in list(_PUBLISHERS):
            if publisher.serves(engine):
                publisher.notify()


class OutboxPublisher:
    """Publishes a database's outbox. One thread runs it; of several processes one is active at a time.

    States of a row: written (not committed, invisible here), committed, published (durable in the event log, not yet
    deleted), deleted. After a kill between the last two states the row is published again.
    """

    def __init__(self, engine: Engine, event_log: EventLog, leader_idle_s: float = LEADER_IDLE_S) -> None:
        """`leader_idle_s`: when this process vanishes for longer, PostgreSQL lets another one publish."""
        self._engine = engine
        self._leader_idle_s = leader_idle_s
        self._event_log = event_log
        self._wake = threading.Event()
        self._topics = ExistingTopics(event_log)
        # Unix times from which the age of the oldest unpublished event is computed: of the oldest row read, of the first
        # commit since the last read began, and of the commits that a read should have found that has not returned.
        self._oldest_at: float | None = None
        self._notified_at: float | None = None
        self._unread_at: float | None = None
        _PUBLISHERS.add(self)

    def notify(self) -> None:
        """Makes the publisher check the outbox now. Commits of this process call it automatically."""
        if self._notified_at is None:
            self._notified_at = time.time()
        self._wake.set()

    def oldest_s(self) -> float:
        """Returns the age of the oldest event that is known to be unpublished. It grows while the publisher is stuck."""
        known = [at for at in (self._oldest_at, self._notified_at, self._unread_at) if at is not None]
        return max(0.0, time.time() - min(known)) if known else 0.0

    def serves(self, engine: Engine) -> bool:
        """Returns whether this publisher publishes from the database of `engine`."""
        return engine.pool is self._engine.pool

    def run(self, stop: threading.Event) -> None:
        """Publishes until `stop` is set, then the rest for at most a few seconds. Never raises: it retries."""
        producer = self._event_log.producer()
        heartbeat = Heartbeat("outbox")
        delivery_metrics.OUTBOX_OLDEST_S.set_function(self.oldest_s)
        failures = 0
        try:
            while not stop.is_set():
                try:
                    with ExitStack() as open_:
                        with heartbeat.step():
                            connection = open_.enter_context(self._leading())
                        if connection is None:  # another process publishes, and reports the age
                            self._oldest_at = self._notified_at = self._unread_at = None
                            heartbeat.succeeded()
                            stop.wait(_POLL_EVERY_S)
                            continue
                        while not stop.is_set():
                            self._wake.clear()
                            with heartbeat.step():
                                published = self._publish_batch(connection, producer)
                            heartbeat.succeeded()
                            failures = 0
                            if not published:
                                self._wake.wait(_POLL_EVERY_S)
                except Exception as error:
                    failures += 1
                    heartbeat.failed(error)
                    delivery_metrics.OUTBOX_FAILURES.inc()
                    logger.exception("publishing from the outbox failed, trying again")
                    stop.wait(retries.delay_s(failures))
            with heartbeat.step():
                self._publish_rest(producer)
        finally:
            heartbeat.close()
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
        """Publishes the oldest rows, deletes them, and returns how many there were."""
        notified_at, self._notified_at = self._notified_at, None
        if self._unread_at is None:
            self._unread_at = notified_at
        with connection.begin():
            rows = connection.execute(select(_OUTBOX).order_by(_OUTBOX.c.seq).limit(_BATCH)).all()
        self._oldest_at = rows[0].created_ms / 1000 if rows else None
        self._unread_at = None
        if not rows:
            return 0
        records = [_record(row) for row in rows]
        with (
            self._topics.ensured({record.topic for record in records}),
            sending(self._event_log.system, records),
        ):
            producer.send(records)
        # By number, not "up to the last": in PostgreSQL a lower number may have been committed meanwhile.
        with crash.step("delete"), connection.begin():
            connection.execute(delete(_OUTBOX).where(_OUTBOX.c.seq.in_([row.seq for row in rows])))
        for record in records:
            delivery_metrics.OUTBOX_PUBLISHED.labels(record.topic).inc()
        return len(rows)

    def _leading(self) -> AbstractContextManager[Connection | None]:
        """Yields a connection for publishing; None while another process publishes, because two would break the order."""
        postgresql = self._engine.dialect.name == "postgresql"
        return (
            _leading_postgresql(self._engine, self._leader_idle_s)
            if postgresql
            else _leading_sqlite(self._engine)
        )


@contextmanager
def _leading_postgresql(engine: Engine, idle_s: float) -> Iterator[Connection | None]:
    """Locks on the connection that reads and deletes: when it breaks, the lock is released and the publisher stops."""
    # READ COMMITTED: no snapshot is needed, and a serialisable reader would make the service's writers fail.
    with engine.execution_options(isolation_level="READ COMMITTED").connect() as connection:
        with connection.begin():
            leads = connection.execute(select(func.pg_try_advisory_lock(_LEADER_LOCK))).scalar_one()
            if leads:  # when this client vanishes, the server ends its session, and another one leads
                connection.execute(_idle_limit(idle_s))
        try:
            yield connection if leads else None
        except BaseException:
            connection.invalidate()  # closes it, which releases the lock in any state
            raise
        if leads:
            with connection.begin():
                connection.execute(_idle_limit(0))
                connection.execute(select(func.pg_advisory_unlock(_LEADER_LOCK)))


def _idle_limit(seconds: float) -> Select[tuple[Any]]:
    return select(func.set_config("idle_session_timeout", milliseconds(seconds), False))


@contextmanager
def _leading_sqlite(engine: Engine) -> Iterator[Connection | None]:
    """Locks a file next to the database. The kernel releases the lock when the process dies."""
    path = Path(engine.url.database or "")
    with private.file(path.with_name(path.name + ".outbox-lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # DEFERRED: reading the outbox must not wait for the service's writers.
        with engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
            yield connection


def _record(row: Row[Any]) -> OutRecord:
    headers = tuple((name, text.encode()) for name, text in json.loads(row.headers))
    return OutRecord(topic=row.topic, key=row.key, value=row.value, headers=headers)
