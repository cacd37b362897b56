"""Each event takes effect once, in order, and what goes wrong goes where it should."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.delivery.dead_letters import DeadLetterCap
from servicekit.eventlog import EventLog, InRecord, OutRecord, Topic
from servicekit.eventlog.events import Event, InvalidEvent, from_record, new_event, to_record
from servicekit.testing.records import read_records
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

TOPIC = Topic("area.thing.v1", partitions=1)
STRING = "google.protobuf.StringValue"
GROUP = "tests"
Start = Callable[[Callable[[threading.Event], None]], Callable[[], None]]


@pytest.fixture
def db(tmp_path: object) -> Engine:
    made = engine(f"sqlite:///{tmp_path}/service.db")
    metadata = new_metadata()
    metadata.create_all(made)
    with transaction(made) as session:
        session.execute(text("CREATE TABLE effects (n INTEGER PRIMARY KEY, value TEXT)"))
    return made


@pytest.fixture(autouse=True)
def topics(event_log: EventLog) -> None:
    event_log.ensure_topics([TOPIC, TOPIC.dead_letters()])


def thing(value: str, key: str = "k") -> Event[StringValue]:
    return new_event(TOPIC, key, StringValue(value=value), "openledger/test")


def send(event_log: EventLog, *events: Event[StringValue] | OutRecord) -> None:
    producer = event_log.producer()
    producer.send([event if isinstance(event, OutRecord) else to_record(event) for event in events])
    producer.close()


def broken(event: Event[StringValue]) -> OutRecord:
    return replace(to_record(event), value=b"\xff\xff")


def record_effect(session: Session, event: Event[StringValue]) -> None:
    session.execute(text("INSERT INTO effects (value) VALUES (:v)"), {"v": event.message.value})


def effects(db: Engine) -> list[str]:
    with transaction(db) as session:
        return list(session.execute(text("SELECT value FROM effects ORDER BY n")).scalars())


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"group": GROUP, "topic": TOPIC.name, **labels}) or 0.0


def dead_letters(event_log: EventLog, count: int) -> list[InRecord]:
    return read_records(event_log, TOPIC.name + ".dlq", count, "operator")


def test_each_event_takes_effect_in_order_and_is_committed(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    send(event_log, *(thing(str(i)) for i in range(300)))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == [str(i) for i in range(300)]


def test_a_repeated_event_takes_effect_once(db: Engine, event_log: EventLog, start: Start) -> None:
    event = thing("once")
    before = counted("openledger_consumer_records_total", outcome="repeated")
    send(event_log, event, event, thing("other"), event)
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == ["once", "other"]
    assert counted("openledger_consumer_records_total", outcome="repeated") - before == 2


def test_a_handlers_own_events_leave_with_its_change(db: Engine, event_log: EventLog, start: Start) -> None:
    answers = Topic("area.answer.v1")
    event_log.ensure_topics([answers])

    def answer(session: Session, event: Event[StringValue]) -> None:
        outbox.add(session, new_event(answers, "k", StringValue(value="re: " + event.message.value), "t"))

    start(outbox.OutboxPublisher(db, event_log).run)
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: answer}}).run)
    send(event_log, thing("a"))
    consumer = event_log.consumer("reader", [answers.name])
    (found,) = eventually(lambda: consumer.poll(0.2), "the answer")
    assert from_record(found).message.value == "re: a"


def test_unknown_types_are_skipped_and_counted(db: Engine, event_log: EventLog, start: Start) -> None:
    known = to_record(thing("known"))
    future = replace(
        known,
        headers=tuple((n, b"openledger.future.v9.Thing" if n == "ce_type" else v) for n, v in known.headers),
    )
    before = counted("openledger_consumer_records_total", outcome="skipped")
    send(event_log, future, to_record(new_event(TOPIC, "k", Struct(), "t")), known)
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == ["known"]
    assert counted("openledger_consumer_records_total", outcome="skipped") - before == 2


def test_transient_failure_is_tried_again_and_order_holds(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    failures = iter([ConnectionError("away"), ConnectionError("still away")])

    def fails_twice(session: Session, event: Event[StringValue]) -> None:
        record_effect(session, event)
        if event.message.value == "1" and (error := next(failures, None)):
            raise error

    send(event_log, *(thing(str(i)) for i in range(4)))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: fails_twice}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == ["0", "1", "2", "3"]


def test_other_partitions_go_on_while_one_waits(db: Engine, event_log: EventLog, start: Start) -> None:
    two = Topic("area.two.v1")
    event_log.ensure_topics([two])
    fixed = threading.Event()

    def stuck(session: Session, event: Event[StringValue]) -> None:
        if not fixed.is_set():
            raise ConnectionError("away")
        record_effect(session, event)

    send(event_log, thing("stuck"), to_record(new_event(two, "k", StringValue(value="free"), "t")))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: stuck}, two: {STRING: record_effect}}).run)
    eventually(lambda: effects(db) == ["free"])
    fixed.set()
    eventually(lambda: effects(db) == ["free", "stuck"])


def test_what_cannot_be_decoded_goes_to_the_dead_letters(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    bad = broken(thing("bad"))
    send(event_log, thing("a"), bad, thing("b"))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    (moved,) = dead_letters(event_log, 1)
    eventually(lambda: effects(db) == ["a", "b"])
    assert (moved.key, moved.value) == (bad.key, bad.value)
    assert set(bad.headers) <= set(moved.headers)
    assert dict(moved.headers)["dlq_reason"] == b"UNDECODABLE"
    assert dict(moved.headers)["dlq_offset"] == b"1"


def test_what_the_handler_refuses_leaves_no_effect_and_goes_to_the_dead_letters(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    def refuses(session: Session, event: Event[StringValue]) -> None:
        record_effect(session, event)
        if event.message.value == "bad":
            raise InvalidEvent("BAD_SHARE", "shares add up to 7")

    send(event_log, thing("bad"), thing("good"))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: refuses}}).run)
    (moved,) = dead_letters(event_log, 1)
    eventually(lambda: effects(db) == ["good"])
    assert dict(moved.headers)["dlq_reason"] == b"BAD_SHARE"


def test_too_many_dead_letters_halt_the_consumer_before_the_next(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    send(event_log, thing("a"), *(broken(thing(str(i))) for i in range(5)), thing("b"))
    runner = ConsumerRunner(
        event_log, db, GROUP, {TOPIC: {STRING: record_effect}}, cap=DeadLetterCap(consecutive=3)
    )
    stop = start(runner.run)
    eventually(lambda: REGISTRY.get_sample_value("openledger_consumer_halted", {"group": GROUP}) == 1)
    assert runner.halted
    assert effects(db) == ["a"]
    assert len(dead_letters(event_log, 3)) == 3
    assert event_log.committed(GROUP, TOPIC.name) == {0: 4}
    stop()


def test_the_handlers_span_belongs_to_the_trace_that_made_the_event(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    seen: list[int] = []

    def handle(session: Session, event: Event[StringValue]) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        event = thing("a")
    send(event_log, event)
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: handle}}).run)
    eventually(lambda: bool(seen))
    assert seen == [span.get_span_context().trace_id]


def test_a_service_without_a_database_sees_events_too(event_log: EventLog, start: Start) -> None:
    seen: list[str] = []

    def handle(session: Session, event: Event[StringValue]) -> None:
        seen.append(event.message.value)

    send(event_log, thing("a"), thing("b"))
    start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: handle}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert seen == ["a", "b"]


def test_stopping_commits_what_was_done_and_the_next_member_continues(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    reached = threading.Event()

    def slow(session: Session, event: Event[StringValue]) -> None:
        record_effect(session, event)
        if event.message.value == "20":
            reached.set()

    send(event_log, *(thing(str(i)) for i in range(400)))
    stop = start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: slow}}).run)
    assert reached.wait(LONGEST_S)
    stop()
    done = effects(db)
    assert event_log.committed(GROUP, TOPIC.name) == {0: len(done)}
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == [str(i) for i in range(400)]


def test_the_lag_metric_is_what_the_group_has_yet_to_commit(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    def stuck(session: Session, event: Event[StringValue]) -> None:
        if event.message.value == "1":
            raise ConnectionError("away")

    send(event_log, *(thing(str(i)) for i in range(4)))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: stuck}}).run)
    eventually(lambda: counted("openledger_consumer_lag_records", partition="0") == 3)


def test_handlers_of_undeclared_types_and_unregistered_topics_are_refused(
    db: Engine, event_log: EventLog
) -> None:
    with pytest.raises(ValueError, match=r"openledger\.future\.v9\.Thing"):
        ConsumerRunner(event_log, db, GROUP, {TOPIC: {"openledger.future.v9.Thing": record_effect}})
    with pytest.raises(ValueError, match="not in proto/topics"):
        ConsumerRunner(event_log, db, GROUP, {"no.such.v1": {STRING: record_effect}})


def test_a_record_that_changed_on_the_disk_is_dead_lettered_and_the_rest_goes_on(
    db: Engine, event_log: EventLog, start: Start, tmp_path: Path
) -> None:
    send(event_log, thing("before"), thing("canary"), thing("after"))
    (file,) = tmp_path.rglob("events.db")
    with closing(sqlite3.connect(file)) as connection, connection:
        flip = "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'canary', 'canari') AS BLOB) WHERE value = ?"
        assert connection.execute(flip, (to_record(thing("canary")).value,)).rowcount == 1
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: event_log.lag(GROUP, TOPIC.name) == {0: 0})
    assert effects(db) == ["before", "after"]
    (letter,) = dead_letters(event_log, 1)
    headers = dict(letter.headers)
    assert headers["dlq_reason"] == b"DAMAGED"
    assert headers["dlq_offset"] == b"1"
    assert b"openledger reconcile" in headers["dlq_detail"]
    assert letter.value == b""
