"""What is committed is published, once the transaction is, in order, and not lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine, text

from servicekit.database import transaction
from servicekit.delivery import outbox
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.eventlog import EventLog, EventLogUnavailable, InRecord, OutRecord, RecordTooLarge, Topic
from servicekit.eventlog.events import Event, from_record, new_event
from servicekit.testing.records import read_records
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.slow

TOPIC = Topic("area.thing.v1", partitions=2)
Start = Callable[[Callable[[threading.Event], None]], Callable[[], None]]


def thing(value: str, key: str = "k") -> Event[StringValue]:
    return new_event(TOPIC, key, StringValue(value=value), "openledger/test")


def add(engine: Engine, *events: Event[StringValue]) -> None:
    with transaction(engine) as session:
        for event in events:
            outbox.add(session, event)


def left(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.execute(text("SELECT count(*) FROM outbox")).scalar_one())


def read(event_log: EventLog, count: int, group: str = "reader") -> list[InRecord]:
    return read_records(event_log, TOPIC.name, count, group)


def values(found: Sequence[InRecord]) -> list[str]:
    return [from_record(record).message.value for record in found]


@pytest.fixture(autouse=True)
def topic(event_log: EventLog) -> None:
    event_log.ensure_topics([TOPIC])


def test_committed_event_is_published_as_it_is_and_leaves_the_outbox(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    stop = start(OutboxPublisher(service_db, event_log).run)
    event = thing("a")
    add(service_db, event)
    (found,) = read(event_log, 1)
    assert from_record(found) == event
    stop()
    assert left(service_db) == 0


def test_rolled_back_event_is_never_published(service_db: Engine, event_log: EventLog, start: Start) -> None:
    stop = start(OutboxPublisher(service_db, event_log).run)

    def add_and_fail() -> None:
        with transaction(service_db) as session:
            outbox.add(session, thing("never"))
            raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError):
        add_and_fail()
    add(service_db, thing("after"))
    stop()
    assert values(read(event_log, 1)) == ["after"]


def test_a_commit_of_this_process_is_published_at_once(
    service_db: Engine, event_log: EventLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_POLL_EVERY_S", 3600.0)  # only a commit wakes the publisher
    publisher = OutboxPublisher(service_db, event_log)
    start(publisher.run)
    add(service_db, thing("warm"))
    consumer = event_log.consumer("reader", [TOPIC.name])
    eventually(lambda: consumer.poll(0.2), "the first event")
    add(service_db, thing("a"))
    assert values(eventually(lambda: consumer.poll(0.2), "the second event")) == ["a"]
    monkeypatch.undo()
    publisher.notify()  # it is to notice that it must stop


def test_events_of_one_key_are_published_in_the_order_of_their_commits(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    """Writers that race for one key: what the key's own counter says is the order in which they are seen."""
    with transaction(service_db) as session:
        session.execute(text("CREATE TABLE counter (n INTEGER NOT NULL)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    start(OutboxPublisher(service_db, event_log).run)
    lock = threading.Lock()

    def write() -> None:
        for _ in range(25):
            # The database serialises these writers by conflicts; the lock only spares the test its retries.
            with lock, transaction(service_db) as session:
                n = session.execute(text("UPDATE counter SET n = n + 1 RETURNING n")).scalar_one()
                outbox.add(session, thing(str(n)))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [int(value) for value in values(read(event_log, 100))] == list(range(1, 101))


def test_a_writer_of_the_same_key_waits_for_the_first_to_commit(postgresql_only: Engine) -> None:
    """On PostgreSQL the second would else get the higher number and be visible first."""
    second_done = threading.Event()

    def second() -> None:
        add(postgresql_only, thing("second"))
        second_done.set()

    with transaction(postgresql_only) as session:
        outbox.add(session, thing("first"))
        racing = threading.Thread(target=second)
        racing.start()
        add(postgresql_only, thing("another key", key="other"))  # does not wait
        assert not second_done.is_set()
    racing.join()
    with transaction(postgresql_only) as session:
        rows = session.execute(text("SELECT value FROM outbox WHERE key = 'k' ORDER BY seq")).scalars()
        assert [StringValue.FromString(bytes(row)).value for row in rows] == ["first", "second"]


@pytest.fixture
def postgresql_only(service_db: Engine) -> Engine:
    if service_db.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    return service_db


def test_what_was_left_is_published_at_the_next_start(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    add(service_db, *(thing(str(i)) for i in range(1200)))
    start(OutboxPublisher(service_db, event_log).run)
    assert values(read(event_log, 1200)) == [str(i) for i in range(1200)]


def test_stopping_publishes_what_was_committed_before(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    stop = start(OutboxPublisher(service_db, event_log).run)
    add(service_db, *(thing(str(i)) for i in range(50)))
    stop()
    assert left(service_db) == 0
    assert len(read(event_log, 50)) == 50


def test_second_publisher_stands_by_and_takes_over(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    first = start(OutboxPublisher(service_db, event_log).run)
    start(OutboxPublisher(service_db, event_log).run)
    add(service_db, thing("a"))
    assert values(read(event_log, 1, "one")) == ["a"]
    first()
    add(service_db, thing("b"))
    assert values(read(event_log, 2, "two")) == ["a", "b"]


def test_event_too_large_for_the_log_is_refused_before_the_commit(service_db: Engine) -> None:
    with pytest.raises(RecordTooLarge):
        add(service_db, thing("x" * 1_000_001))
    assert left(service_db) == 0


class Failing:
    """An event log whose first sends fail: before writing, or after it as when an answer is lost."""

    def __init__(self, real: EventLog, failures: int, *, after_writing: bool) -> None:
        self._real = real
        self._failures = failures
        self._after_writing = after_writing

    def producer(self) -> Failing:
        self._producer = self._real.producer()
        return self

    def send(self, records: Sequence[OutRecord]) -> None:
        self._failures -= 1
        if self._failures < 0 or self._after_writing:
            self._producer.send(records)
        if self._failures >= 0:
            raise EventLogUnavailable("away")

    def close(self) -> None:
        self._producer.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_publishing_waits_for_an_event_log_that_is_down(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    failing = Failing(event_log, 2, after_writing=False)
    start(OutboxPublisher(service_db, failing).run)  # type: ignore[arg-type]
    add(service_db, thing("a"))
    assert values(read(event_log, 1)) == ["a"]


def test_lost_answer_makes_a_repeat_with_the_same_id(
    service_db: Engine, event_log: EventLog, start: Start
) -> None:
    deaf = Failing(event_log, 1, after_writing=True)
    event = thing("a")
    add(service_db, event)
    start(OutboxPublisher(service_db, deaf).run)  # type: ignore[arg-type]
    assert [from_record(record).id for record in read(event_log, 2)] == [event.id, event.id]
