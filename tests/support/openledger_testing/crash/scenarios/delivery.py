"""servicekit alone: a change with its event by outbox, records by write-ahead log, a consumer that counts, one invalid record."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import text

from openledger_testing.crash.service_run import acknowledge, acknowledged
from openledger_testing.crash.stored_state import appearances, events, lag, one, rows
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.eventlog import OutRecord, Topic, open_event_log
from servicekit.eventlog.base import EventLog
from servicekit.eventlog.events import Event, new_event, to_record
from servicekit.testing.waiting import eventually
from servicekit.wal import Wal, WalSender, pack

MADE = Topic("area.made.v1", partitions=2)
LOGGED = Topic("area.logged.v1", partitions=2)
TYPE = StringValue.DESCRIPTOR.full_name
COUNT = 4
SEGMENT_BYTES = 300  # two records fill one


def prepare(folder: Path) -> None:
    """Two databases, and a record that no consumer can read."""
    for name, columns in (("maker", "n INTEGER PRIMARY KEY"), ("taker", "topic TEXT, value TEXT")):
        made = engine(f"sqlite:///{folder / name}.db")
        new_metadata().create_all(made)
        with transaction(made) as session:
            session.execute(text(f"CREATE TABLE things ({columns})"))
        made.dispose()
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics([MADE, LOGGED])
    headers = (
        ("ce_id", b"invalid"),
        ("ce_type", TYPE.encode()),
        ("ce_source", b"test"),
        ("ce_time", b"never"),
    )
    log.producer().send([OutRecord(MADE.name, b"key0", b"\xff", headers)])
    log.close()


def live(folder: Path) -> None:
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    make(folder, log)
    record(folder, log)
    take(folder, log)
    log.close()


def make(folder: Path, log: EventLog) -> None:
    """Makes each number once, however often it is asked for, and publishes that it was made."""
    database = engine(f"sqlite:///{folder / 'maker.db'}")
    for number in range(COUNT):
        with transaction(database) as session:
            insert = text("INSERT OR IGNORE INTO things VALUES (:n) RETURNING n")
            if session.execute(insert, {"n": number}).first() is not None:
                outbox.add(
                    session, new_event(MADE, f"key{number % 2}", StringValue(value=str(number)), "test")
                )
    outbox.OutboxPublisher(database, log).run(stopped())
    database.dispose()


def record(folder: Path, log: EventLog) -> None:
    """Sends each record until the log has acknowledged it: a client repeats only what was not acknowledged."""
    known = acknowledged(folder)
    wal = Wal(folder / "wal", segment_bytes=SEGMENT_BYTES, max_bytes=100 * SEGMENT_BYTES)
    for number in (number for number in range(COUNT) if str(number) not in known):
        value = StringValue(value=str(number))
        event = Event(
            id=f"logged-{number}",
            type=TYPE,
            source="test",
            time=datetime(2026, 1, 1, tzinfo=UTC),
            topic=LOGGED.name,
            key="key",
            message=value,
        )
        wal.append(pack(to_record(event)))
        acknowledge(folder, str(number))
    sender = WalSender(wal, log)
    sender.run(stopped())
    wal.close()


def take(folder: Path, log: EventLog) -> None:
    database = engine(f"sqlite:///{folder / 'taker.db'}")

    def count(session, event) -> None:  # type: ignore[no-untyped-def]
        session.execute(
            text("INSERT INTO things VALUES (:t, :v)"), {"t": event.topic, "v": event.message.value}
        )

    stop = threading.Event()
    runner = ConsumerRunner(log, database, "takers", {MADE: {TYPE: count}, LOGGED: {TYPE: count}})
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    eventually(lambda: lag(folder, "takers", MADE.name, LOGGED.name) == 0, "all is taken")
    stop.set()
    thread.join()
    database.dispose()


def stopped() -> threading.Event:
    """For a thread's work that is to do what is there and return."""
    stop = threading.Event()
    stop.set()
    return stop


def check(folder: Path) -> None:
    numbers = [str(number) for number in range(COUNT)]
    assert sorted(event.value for event in events(folder, LOGGED.name).values()) == numbers
    taken = appearances(rows(folder / "taker.db", "SELECT topic, value FROM things"))
    assert taken == {(topic.name, number): 1 for topic in (MADE, LOGGED) for number in numbers}, taken
    assert one(folder / "maker.db", "SELECT count(*) FROM outbox") == 0
    assert one(folder / "taker.db", "SELECT count(*) FROM inbox") == 2 * COUNT
    dead = rows(folder / "events.db", "SELECT r.headers FROM records r JOIN partitions p ON p.id = r.id >> 40"
                " WHERE p.topic = ?", MADE.dead_letters().name)  # fmt: skip
    assert dead, "the invalid record was moved aside"
    assert all('["ce_id", "invalid"]' in headers for (headers,) in dead)
