"""The sender brings the write-ahead log to the event log: all of it, in order, from where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from servicekit.eventlog import EventLog, EventLogUnavailable, InRecord, OutRecord, RecordTooLarge, Topic
from servicekit.eventlog.events import from_record, new_event, to_record
from servicekit.testing.records import read_records
from servicekit.testing.waiting import eventually
from servicekit.wal import Wal, WalSender, pack, sender, unpack

TOPIC = Topic("area.thing.v1", partitions=2)
Start = Callable[[Callable[[threading.Event], None]], Callable[[], None]]


def record(value: str) -> OutRecord:
    return to_record(new_event(TOPIC, "k", StringValue(value=value), "openledger/test"))


def read(event_log: EventLog, count: int) -> list[InRecord]:
    return read_records(event_log, TOPIC.name, count)


def values(found: list[InRecord]) -> list[str]:
    return [from_record(one).message.value for one in found]


@pytest.fixture(autouse=True)
def topic(event_log: EventLog) -> None:
    event_log.ensure_topics([TOPIC])


def test_a_packed_record_is_unpacked_as_it_was() -> None:
    packed = OutRecord("a.b.v1", bytes(range(256)), b"\x00value", (("h", b"\xff"), ("h", b"")))
    assert unpack(pack(packed)) == packed


def test_what_the_event_log_would_never_take_is_refused_at_once() -> None:
    with pytest.raises(RecordTooLarge):
        pack(OutRecord("a.b.v1", b"", b"x" * 1_000_001))


def test_appended_records_arrive_in_order_and_at_once(
    tmp_path: Path, event_log: EventLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_WAIT_S", 3600.0)  # only a record wakes the sender
    wal = Wal(tmp_path / "wal")
    start(WalSender(wal, event_log).run)
    wal.append(pack(record("warm")))
    consumer = event_log.consumer("soon", [TOPIC.name])
    eventually(lambda: consumer.poll(0.2), "the first record")
    wal.append(pack(record("a")))
    assert values(eventually(lambda: consumer.poll(0.2), "the second record")) == ["a"]
    monkeypatch.undo()
    for i in range(2000):
        wal.append(pack(record(str(i))))
    assert values(read(event_log, 2002))[2:] == [str(i) for i in range(2000)]


def test_stopping_sends_the_rest_and_the_next_start_sends_nothing_again(
    tmp_path: Path, event_log: EventLog, start: Start
) -> None:
    wal = Wal(tmp_path / "wal")
    stop = start(WalSender(wal, event_log).run)
    for i in range(100):
        wal.append(pack(record(str(i))))
    stop()
    wal.close()
    wal = Wal(tmp_path / "wal")
    stop = start(WalSender(wal, event_log).run)
    wal.append(pack(record("after")))
    stop()
    wal.close()
    assert sum(event_log.end_offsets(TOPIC.name).values()) == 101


class Failing:
    """An event log that writes and then, a few times, loses its answer."""

    def __init__(self, real: EventLog, failures: int) -> None:
        self._real = real
        self._failures = failures

    def producer(self) -> Failing:
        self._producer = self._real.producer()
        return self

    def send(self, records: Sequence[OutRecord]) -> None:
        self._producer.send(records)
        self._failures -= 1
        if self._failures >= 0:
            raise EventLogUnavailable("lost the answer")

    def close(self) -> None:
        self._producer.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_lost_answer_makes_a_repeat_with_the_same_id(
    tmp_path: Path, event_log: EventLog, start: Start
) -> None:
    wal = Wal(tmp_path / "wal")
    wal.append(pack(record("a")))
    start(WalSender(wal, Failing(event_log, 1)).run)  # type: ignore[arg-type]
    first, second = read(event_log, 2)
    assert from_record(first).id == from_record(second).id


def test_garbage_in_the_log_does_not_hold_up_what_follows(
    tmp_path: Path, event_log: EventLog, start: Start
) -> None:
    wal = Wal(tmp_path / "wal")
    wal.append(b"\xff\xff\xff\xff no record")
    wal.append(pack(record("a")))
    start(WalSender(wal, event_log).run)
    assert values(read(event_log, 1)) == ["a"]
