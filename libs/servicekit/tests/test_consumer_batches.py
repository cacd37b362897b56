"""Batch handlers: many events in one transaction, and the faults of one of them are its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from servicekit.database import transaction
from servicekit.delivery.consumer import BatchHandler, ConsumerRunner, Handler
from servicekit.errors import Unavailable
from servicekit.eventlog import EventLog, OutRecord, Topic
from servicekit.eventlog.events import Event, InvalidEvent, new_event, to_record
from servicekit.testing.waiting import LONGEST_S, eventually

TOPIC = Topic("area.thing.v1", partitions=1)
STRING, INT = "google.protobuf.StringValue", "google.protobuf.Int64Value"
GROUP = "batches"
Start = Callable[[Callable[[threading.Event], None]], Callable[[], None]]


@pytest.fixture
def db(service_db: Engine) -> Engine:
    serial = "INTEGER PRIMARY KEY" if service_db.dialect.name == "sqlite" else "SERIAL PRIMARY KEY"
    with transaction(service_db) as session:
        session.execute(text(f"CREATE TABLE effects (at {serial}, key TEXT, value TEXT)"))
    return service_db


@pytest.fixture(autouse=True)
def topics(event_log: EventLog) -> None:
    event_log.ensure_topics([TOPIC, TOPIC.dead_letters()])


def record(value: str, key: str = "k") -> OutRecord:
    return to_record(new_event(TOPIC, key, StringValue(value=value), "openledger/test"))


def send(event_log: EventLog, records: Sequence[OutRecord]) -> None:
    producer = event_log.producer()
    producer.send(records)
    producer.close()


def effects(db: Engine) -> list[str]:
    with transaction(db) as session:
        return list(session.execute(text("SELECT value FROM effects ORDER BY at")).scalars())


class Batches:
    """Writes what it is given, and keeps how much came at once; `fault` may raise for an event."""

    def __init__(self, fault: Callable[[str], None] = lambda value: None) -> None:
        self.sizes: list[int] = []
        self.fault = fault

    def __call__(self, session: Session, events: Sequence[Event[StringValue]]) -> None:
        self.sizes.append(len(events))
        for event in events:
            values = {"k": event.key, "v": event.message.value}
            session.execute(text("INSERT INTO effects (key, value) VALUES (:k, :v)"), values)
            self.fault(event.message.value)


def consumer(event_log: EventLog, db: Engine, handler: Batches, **others: Handler) -> ConsumerRunner:
    return ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: BatchHandler(handler), **others}})


def caught_up(event_log: EventLog) -> bool:
    return sum(event_log.lag(GROUP, TOPIC.name).values()) == 0


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"group": GROUP, "topic": TOPIC.name, **labels}) or 0.0


def test_hundreds_of_events_take_effect_in_one_transaction_in_order(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    values = [str(number) for number in range(400)]
    send(event_log, [record(value, key=f"k{int(value) % 7}") for value in values])
    before = counted("openledger_consumer_records_total", outcome="handled")
    handler = Batches()
    start(consumer(event_log, db, handler).run)
    eventually(lambda: caught_up(event_log))
    assert effects(db) == values
    assert handler.sizes == [400]
    assert counted("openledger_consumer_records_total", outcome="handled") - before == 400


def test_what_is_delivered_again_has_no_second_effect_even_within_one_batch(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    records = [record(str(number)) for number in range(20)]
    send(event_log, [*records[:10], *records[5:15], records[14], records[14]])
    handler = Batches()
    end = start(consumer(event_log, db, handler).run)
    eventually(lambda: caught_up(event_log))
    end()
    send(event_log, records)
    start(consumer(event_log, db, handler).run)
    eventually(lambda: caught_up(event_log))
    assert effects(db) == [str(number) for number in range(20)]
    assert handler.sizes == [15, 5]


def test_a_poison_event_is_moved_aside_alone(db: Engine, event_log: EventLog, start: Start) -> None:
    def refuse(value: str) -> None:
        if value == "13":
            raise InvalidEvent("UNLUCKY", value)

    send(event_log, [record(str(number)) for number in range(30)])
    before = counted("openledger_consumer_batches_split_total")
    start(consumer(event_log, db, Batches(refuse)).run)
    eventually(lambda: caught_up(event_log))
    assert effects(db) == [str(number) for number in range(30) if number != 13]
    assert sum(event_log.end_offsets(TOPIC.dead_letters().name).values()) == 1
    assert counted("openledger_consumer_batches_split_total") - before == 1


def test_bytes_that_are_no_message_are_moved_aside_alone(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    good = record("good")
    bad = OutRecord(good.topic, good.key, b"\xff", record("bad").headers)
    send(event_log, [record("first"), bad, good])
    start(consumer(event_log, db, Batches()).run)
    eventually(lambda: caught_up(event_log))
    assert effects(db) == ["first", "good"]
    assert sum(event_log.end_offsets(TOPIC.dead_letters().name).values()) == 1


def test_an_event_that_fails_for_a_while_holds_those_after_it_and_not_those_before(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    tried, ready = threading.Semaphore(0), threading.Event()

    def wait(value: str) -> None:
        if value == "3" and not ready.is_set():
            tried.release()
            raise RuntimeError("its predecessor is not there yet")

    send(event_log, [record(str(number)) for number in range(6)])
    start(consumer(event_log, db, Batches(wait)).run)
    for _ in range(3):  # in the batch, alone, and again after a pause
        assert tried.acquire(timeout=LONGEST_S)
    assert effects(db) == ["0", "1", "2"]
    ready.set()
    eventually(lambda: caught_up(event_log))
    assert effects(db) == [str(number) for number in range(6)]


def test_while_the_database_is_down_a_batch_waits_whole(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    outages = iter(range(2))

    def go_down(value: str) -> None:
        if next(outages, None) is not None:
            raise Unavailable("DATABASE_UNAVAILABLE", "the database does not answer")

    send(event_log, [record(str(number)) for number in range(9)])
    handler = Batches(go_down)
    start(consumer(event_log, db, handler).run)
    eventually(lambda: caught_up(event_log))
    assert handler.sizes == [9, 9, 9]


def test_a_batch_ends_where_another_type_begins(db: Engine, event_log: EventLog, start: Start) -> None:
    def number(session: Session, event: Event[Int64Value]) -> None:
        values = {"v": str(event.message.value)}
        session.execute(text("INSERT INTO effects (key, value) VALUES ('k', :v)"), values)

    one = to_record(new_event(TOPIC, "k", Int64Value(value=7), "openledger/test"))
    send(event_log, [record("a"), record("b"), one, record("c")])
    handler = Batches()
    start(consumer(event_log, db, handler, **{INT: number}).run)
    eventually(lambda: caught_up(event_log))
    assert effects(db) == ["a", "b", "7", "c"]
    assert handler.sizes == [2, 1]
