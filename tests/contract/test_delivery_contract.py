"""The whole way of an event, outbox to effect, on both event logs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.eventlog import EventLog, Topic, open_event_log
from servicekit.eventlog.events import Event, new_event
from servicekit.testing.waiting import eventually


@pytest.fixture
def db(tmp_path: Path) -> Engine:
    made = engine(f"sqlite:///{tmp_path}/service.db")
    new_metadata().create_all(made)
    with transaction(made) as session:
        session.execute(text("CREATE TABLE effects (at INTEGER PRIMARY KEY, key TEXT, n INTEGER)"))
    return made


def take(session: Session, event: Event[StringValue]) -> None:
    session.execute(
        text("INSERT INTO effects (key, n) VALUES (:key, :n)"),
        {"key": event.key, "n": int(event.message.value)},
    )


def write(db: Engine, topic: str, numbers: range) -> None:
    for n in numbers:
        with transaction(db) as session:
            outbox.add(session, new_event(topic, f"key{n % 4}", StringValue(value=str(n)), "openledger/test"))


def effects(db: Engine) -> list[tuple[str, int]]:
    with transaction(db) as session:
        return [(row.key, row.n) for row in session.execute(text("SELECT key, n FROM effects ORDER BY at"))]


@contextmanager
def running(*runs: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(stop,)) for run in runs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_committed_changes_take_effect_once_in_order_while_members_come_and_go(
    log: EventLog, log_url: str, new_topic: Callable[..., str], db: Engine
) -> None:
    topic = new_topic(4)
    handlers = {Topic(topic, 4): {"google.protobuf.StringValue": take}}
    second_log = open_event_log(log_url)
    first = ConsumerRunner(log, db, "delivery", handlers)
    second = ConsumerRunner(second_log, db, "delivery", handlers, workers=3)
    with running(OutboxPublisher(db, log).run, first.run):
        write(db, topic, range(100))
        with running(second.run):
            write(db, topic, range(100, 200))
            eventually(lambda: len(effects(db)) >= 150)
        write(db, topic, range(200, 250))
        eventually(lambda: len(effects(db)) >= 250)
    second_log.close()
    found = effects(db)
    assert sorted(n for _, n in found) == list(range(250))
    for key in range(4):
        of_key = [n for where, n in found if where == f"key{key}"]
        assert of_key == sorted(of_key)
    assert sum(log.lag("delivery", topic).values()) == 0
