"""A broker that dies, or is not there: what was committed arrives, and callers get an error in bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine

from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.eventlog import EventLogUnavailable, OutRecord, Topic, open_event_log
from servicekit.eventlog.events import from_record, new_event
from servicekit.testing.waiting import LONGEST_S, eventually

TOPIC = Topic("area.thing.v1", partitions=2)
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the test's own, to be killed."""
    fetch_jars()
    own = KafkaBroker(tmp_path / "kafka")
    own.start()
    yield own
    own.kill()


@pytest.fixture
def db(tmp_path: Path) -> Engine:
    made = engine(f"sqlite:///{tmp_path}/service.db")
    new_metadata().create_all(made)
    return made


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_said_in_bounded_time() -> None:
    log = open_event_log("kafka://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(EventLogUnavailable):
        log.producer().send([OutRecord("a.b.v1", b"k", b"v")])
    with pytest.raises(EventLogUnavailable):
        log.consumer("g", ["a.b.v1"]).poll(0.1)
    assert time.monotonic() - started < LONGEST_S
    log.close()


@pytest.mark.server
def test_broker_killed_while_the_outbox_is_published_loses_nothing(broker: KafkaBroker, db: Engine) -> None:
    log = open_event_log(f"kafka://{broker.address}")
    log.ensure_topics([TOPIC])
    count = 3000
    with transaction(db) as session:
        for n in range(count):
            outbox.add(session, new_event(TOPIC, f"key{n % 4}", StringValue(value=str(n)), "openledger/test"))
    stop = threading.Event()
    publishing = threading.Thread(target=OutboxPublisher(db, log).run, args=(stop,))
    publishing.start()
    eventually(lambda: sum(log.end_offsets(TOPIC.name).values()) > 0, "the first event")
    broker.kill()
    broker.start()
    reading = open_event_log(f"kafka://{broker.address}")
    consumer = reading.consumer("g", [TOPIC.name])
    seen: dict[str, list[int]] = {f"key{k}": [] for k in range(4)}
    ids: set[str] = set()

    def complete() -> bool:
        for record in consumer.poll(1):
            event = from_record(record)
            if event.id not in ids:
                ids.add(event.id)
                seen[event.key].append(int(event.message.value))
        return len(ids) >= count

    eventually(complete, f"{count} events")
    stop.set()
    publishing.join()
    reading.close()
    log.close()
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert sorted(n for numbers in seen.values() for n in numbers) == list(range(count))
