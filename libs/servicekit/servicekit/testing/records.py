"""For tests: the records of an event log, read by a consumer group of the test's own."""

from __future__ import annotations

from servicekit.eventlog import EventLog, InRecord
from servicekit.testing.waiting import eventually


def read_records(event_log: EventLog, topic: str, count: int, group: str = "reader") -> list[InRecord]:
    """Returns the records of a topic, once there are at least `count` that the group has not read.

    Raises:
        AssertionError: they do not come.
    """
    consumer = event_log.consumer(group, [topic])
    found: list[InRecord] = []

    def complete() -> bool:
        found.extend(consumer.poll(0.2))
        return len(found) >= count

    try:
        eventually(complete, f"{count} records of {topic}")
    finally:
        consumer.close()
    return found
