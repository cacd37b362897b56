"""A consumer that finds too much invalid stops instead of moving everything aside."""

from __future__ import annotations

import pytest

from servicekit.delivery.dead_letters import DeadLetterCap, DeadLetterCapReached, DeadLetterCount, dead_letter
from servicekit.eventlog import InRecord
from servicekit.eventlog.events import InvalidEvent


def add_invalid(count: DeadLetterCount, times: int) -> None:
    for _ in range(times):
        count.check()
        count.invalid()


def test_so_many_in_a_row_and_no_more() -> None:
    count = DeadLetterCount(DeadLetterCap(consecutive=3))
    add_invalid(count, 3)
    with pytest.raises(DeadLetterCapReached, match="3 invalid records in a row"):
        count.check()


def test_a_valid_record_begins_a_new_row() -> None:
    count = DeadLetterCount(DeadLetterCap(consecutive=3))
    for _ in range(5):
        add_invalid(count, 3)
        count.valid()


def test_share_is_judged_once_half_a_window_is_seen() -> None:
    count = DeadLetterCount(DeadLetterCap(consecutive=100, ratio=0.1, window=100))
    for _ in range(8):
        add_invalid(count, 1)
        for _ in range(11):
            count.valid()
    with pytest.raises(DeadLetterCapReached, match="9 of the last 97 records"):
        add_invalid(count, 2)


def test_old_faults_are_forgotten() -> None:
    count = DeadLetterCount(DeadLetterCap(consecutive=100, ratio=0.1, window=20))
    add_invalid(count, 2)
    for _ in range(20):
        count.valid()
    add_invalid(count, 2)


def test_dead_letter_keeps_the_record_and_says_why() -> None:
    record = InRecord(
        topic="a.b.v1",
        partition=2,
        offset=41,
        timestamp_ms=0,
        key=b"key",
        value=b"value",
        headers=(("ce_id", b"1"), ("traceparent", b"00")),
    )
    moved = dead_letter(record, "group", InvalidEvent("BAD_SHARE", "shares add up to 7 " + "x" * 2000))
    assert (moved.topic, moved.key, moved.value) == ("a.b.v1.dlq", b"key", b"value")
    assert moved.headers[:2] == record.headers
    reasons = dict(moved.headers)
    assert reasons["dlq_reason"] == b"BAD_SHARE"
    assert reasons["dlq_detail"].startswith(b"shares add up to 7")
    assert len(reasons["dlq_detail"]) == 1000
    where = reasons["dlq_group"], reasons["dlq_topic"], reasons["dlq_partition"], reasons["dlq_offset"]
    assert where == (b"group", b"a.b.v1", b"2", b"41")


def test_dead_letter_of_a_record_at_the_size_limit_still_fits() -> None:
    record = InRecord(topic="a.b.v1", partition=0, offset=0, timestamp_ms=0, key=b"", value=b"v" * 1_000_000)
    moved = dead_letter(record, "group", InvalidEvent("X", "y"))
    assert moved.size() < 1_000_000
    assert dict(moved.headers)["dlq_left_out"] == b"value"
