"""What the embedded event log does beyond the contract (tests/contract): retention, leases, wake-ups, its file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from servicekit.eventlog import (
    EventLogError,
    EventLogUnavailable,
    Fenced,
    OutRecord,
    Topic,
    TopicPartition,
    _group,
    embedded,
)
from servicekit.eventlog._embedded_consumer import EmbeddedConsumer
from servicekit.eventlog.embedded import EmbeddedEventLog
from servicekit.eventlog.events import InvalidEvent, from_record
from servicekit.testing.waiting import LONGEST_S

T = "area.thing.v1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def log(path: Path) -> EmbeddedEventLog:
    opened = EmbeddedEventLog(path)
    opened.ensure_topics([Topic(T)])
    return opened


def send(log: EmbeddedEventLog, *values: str) -> None:
    producer = log.producer()
    producer.send([OutRecord(T, b"k", value.encode()) for value in values])
    producer.close()


def test_a_file_of_the_first_release_is_upgraded_and_its_group_continues(
    log: EmbeddedEventLog, path: Path
) -> None:
    send(log, "a", "b")
    consumer = log.consumer("g", [T])
    (first, _) = consumer.poll(1)
    consumer.commit({first.topic_partition: 1})
    log.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "ALTER TABLE ownership RENAME COLUMN assigned TO wanted;"  # old name
            "ALTER TABLE records DROP COLUMN crc32c; PRAGMA user_version = 1;"
        )
    again = EmbeddedEventLog(path)
    assert [record.value for record in again.consumer("g", [T]).poll(1)] == [b"b"]
    again.close()


@pytest.mark.parametrize(
    "change",
    [
        "value = CAST(X'63' || substr(value, 2) AS BLOB)",
        "key = X'FF'",
        "headers = CAST(X'FF' AS TEXT)",
        "timestamp_ms = timestamp_ms + 1",
        "timestamp_ms = 'text'",
        "value = 5",
        "crc32c = crc32c + 1",
    ],
)
def test_a_changed_byte_is_found_and_named_and_the_other_records_are_delivered(
    log: EmbeddedEventLog, path: Path, change: str
) -> None:
    send(log, "aaaa", "bbbb", "cccc")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE records SET {change} WHERE id & 0xFFFFFFFF = 1").rowcount == 1
    before, damaged, after = log.consumer("g", [T]).poll(5)
    assert (before.value, before.damage, after.value, after.damage) == (b"aaaa", "", b"cccc", "")
    assert damaged.value == b""
    assert damaged.offset == 1
    assert f"offset 1 of {T}, partition 0" in damaged.damage
    assert "openledger reconcile" in damaged.damage
    with pytest.raises(InvalidEvent, match="DAMAGED"):
        from_record(damaged)


def test_a_damaged_file_says_what_to_do(log: EmbeddedEventLog, path: Path) -> None:
    send(log, *(f"{number:01000}" for number in range(100)))
    log.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(EventLogError, match="restore the file from a backup"):
        EmbeddedEventLog(path).consumer("g", [T]).poll(1)


def test_offsets_are_dense(log: EmbeddedEventLog) -> None:
    send(log, "a", "b")
    send(log, "c")
    assert [record.offset for record in log.consumer("g", [T]).poll(1)] == [0, 1, 2]


def test_expired_records_go_and_a_late_group_begins_at_the_oldest_kept(
    log: EmbeddedEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.ensure_topics([Topic(T, retention_hours=1)])
    now = _group.now_ms()
    monkeypatch.setattr(embedded, "now_ms", lambda: now - 2 * 3_600_000)
    producer = log.producer()
    producer.send([OutRecord(T, b"k", b"old")] * 3)  # at once pruned by a clock two hours behind: nothing yet
    consumer = log.consumer("late", [T])
    assert len(consumer.poll(1, max_records=1)) == 1
    consumer.commit({TopicPartition(T, 0): 1})
    consumer.close()
    monkeypatch.setattr(embedded, "now_ms", lambda: now)
    send(log, "new")
    assert log.lag("late", T) == {0: 1}
    found = log.consumer("late", [T]).poll(1)
    assert [(record.offset, record.value) for record in found] == [(3, b"new")]


def test_topics_without_retention_keep_everything(
    log: EmbeddedEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "now_ms", lambda: 0)
    send(log, "ancient")
    monkeypatch.undo()
    send(log, "new")
    assert len(log.consumer("g", [T]).poll(1)) == 2


_JOIN = """
import sys
from pathlib import Path
from servicekit.eventlog._embedded_consumer import EmbeddedConsumer
from servicekit.eventlog.embedded import EmbeddedEventLog
consumer = EmbeddedEventLog(Path(sys.argv[1])).consumer("g", [sys.argv[2]], session_timeout_s=float(sys.argv[3]))
consumer.poll(1)
assert consumer.assignment()
print("joined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_member(log: EmbeddedEventLog, path: Path) -> Callable[[float], subprocess.Popen[str]]:
    def begin(session_timeout_s: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _JOIN, path, T, str(session_timeout_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        return process

    return begin


@pytest.mark.server
def test_a_killed_members_partitions_are_taken_over_without_waiting_for_its_lease(
    log: EmbeddedEventLog, other_member: Callable[[float], subprocess.Popen[str]]
) -> None:
    other = other_member(600)
    send(log, "a")
    other.kill()
    other.wait()
    assert len(log.consumer("g", [T]).poll(LONGEST_S)) == 1


@pytest.mark.server
def test_a_stopped_members_partitions_are_taken_over_after_its_lease_and_it_is_fenced(
    log: EmbeddedEventLog, path: Path
) -> None:
    """As when a laptop sleeps or a container is frozen: the process continues without noticing."""
    frozen, awake = log.consumer("g", [T], session_timeout_s=600), log.consumer("g", [T])
    send(log, "a")
    assert len(frozen.poll(1)) == 1
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE members SET lease_until_ms = 1")
    connection.close()
    assert len(awake.poll(LONGEST_S)) == 1
    with pytest.raises(Fenced):
        frozen.commit({TopicPartition(T, 0): 1})
    awake.commit({TopicPartition(T, 0): 1})
    assert frozen.poll(0.1) == []  # it is a member again, and waits for its part
    awake.close()
    send(log, "b")
    assert [record.value for record in frozen.poll(LONGEST_S)] == [b"b"]
    frozen.commit({TopicPartition(T, 0): 2})


def test_a_lost_wake_up_costs_a_second_at_most(log: EmbeddedEventLog, path: Path) -> None:
    """A producer killed between its commit and its poke: simulated by taking its pipe away."""
    consumer = log.consumer("g", [T])
    consumer.poll(0)
    for pipe in (path.parent / (path.name + ".wake")).iterdir():
        pipe.unlink()
    late = threading.Thread(target=send, args=(log, "a"))
    started = time.monotonic()
    late.start()
    assert len(consumer.poll(10 * LONGEST_S)) == 1
    assert time.monotonic() - started < LONGEST_S  # not at the end of its time
    late.join()


def test_a_consumer_that_waits_reads_the_file_about_once_a_second(log: EmbeddedEventLog) -> None:
    consumer = log.consumer("g", [T])
    assert isinstance(consumer, EmbeddedConsumer)
    consumer.poll(0)
    statements: list[str] = []
    consumer._connection.set_trace_callback(statements.append)
    consumer.poll(1.5)
    assert 0 < len(statements) < 50  # again and again would be thousands


def test_closing_leaves_no_pipes(log: EmbeddedEventLog, path: Path) -> None:
    consumer = log.consumer("g", [T])
    consumer.poll(0)
    log.close()
    assert os.listdir(path.parent / (path.name + ".wake")) == []  # noqa: PTH208


def test_partitions_of_several_topics_are_spread_over_the_members(log: EmbeddedEventLog) -> None:
    names = [f"area.single{i}.v1" for i in range(4)]
    log.ensure_topics([Topic(name) for name in names])
    first, second = log.consumer("g", names), log.consumer("g", names)
    first.poll(0)
    for member in (second, first, second):
        member.poll(0)
    assert len(first.assignment()) == len(second.assignment()) == 2


def test_a_file_of_another_release_is_refused(log: EmbeddedEventLog, path: Path) -> None:
    log.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(EventLogError, match="layout 99"):
        EmbeddedEventLog(path)


def test_a_full_disk_is_said_and_nothing_of_the_call_is_written(log: EmbeddedEventLog) -> None:
    producer = log.producer()
    (pages,) = producer._connection.execute("PRAGMA page_count").fetchone()
    producer._connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(EventLogUnavailable, match="full"):
        producer.send([OutRecord(T, b"k", b"x" * 10_000)] * 50)
    assert log.end_offsets(T) == {0: 0}
