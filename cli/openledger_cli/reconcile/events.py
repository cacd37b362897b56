"""What services have told: everything in a topic and in its producer's outbox, without taking part in anyone's group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from ulid import ULID

from openledger_cli.reconcile.book import Away
from openledger_cli.reconcile.rows import Rows
from servicekit.eventlog import EventLog, InRecord, Topic, UnknownTopic

_IDLE_S = 60.0
"""A topic that gives nothing for so long, before its end, is given up."""

M = TypeVar("M", bound=Message)
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Told(Generic[K]):
    """An event. Of its message only what the reconciler needs is kept: a topic may hold millions."""

    partition: int
    """-1 while it waits in an outbox."""
    offset: int
    event_id: str
    kept: K


@dataclass(frozen=True)
class Telling:
    """The event log, and the outboxes of those who write to it."""

    log: EventLog
    rows: dict[str, Rows]

    def told(self, topic: Topic, producer: str, kind: type[M], keep: Callable[[M], K]) -> list[Told[K]]:
        """The events of one type in a topic, each once: first those in the log, in its order, then the outbox's."""
        found: dict[str, Told[K]] = {}
        for record in records(self.log, topic.name):
            headers = dict(record.headers)
            if headers.get("ce_type", b"").decode() == kind.DESCRIPTOR.full_name:
                event_id = headers["ce_id"].decode()
                kept = keep(kind.FromString(record.value))
                found.setdefault(event_id, Told(record.partition, record.offset, event_id, kept))
        for event_id, value, headers_json in self._outbox(producer, topic.name):
            if dict(json.loads(headers_json)).get("ce_type") == kind.DESCRIPTOR.full_name:
                found.setdefault(event_id, Told(-1, -1, event_id, keep(kind.FromString(value))))
        return list(found.values())

    def _outbox(self, producer: str, topic: str) -> list[tuple[str, bytes, str]]:
        rows = self.rows[producer].all("SELECT event_id, topic, value, headers FROM outbox ORDER BY seq")
        return [(row.event_id, row.value, row.headers) for row in rows if row.topic == topic]


def records(log: EventLog, topic: str) -> Iterator[InRecord]:
    """What a topic held when it was asked, repeats included; nothing when nobody ever wrote there.

    Raises:
        Away: the log stopped giving before the end.
        EventLogUnavailable: it does not answer.
    """
    group = (
        f"reconcile-{ULID()}"  # of its own and never committed: nobody's offsets or partitions are touched
    )
    try:
        kept = log.lag(group, topic)
        ends = log.end_offsets(topic)
    except UnknownTopic:
        return
    open_ = {partition for partition, count in kept.items() if count}
    consumer = log.consumer(group, [topic])
    try:
        heard = time.monotonic()
        while open_:
            for record in consumer.poll(1.0):
                heard = time.monotonic()
                if record.offset < ends[record.partition]:
                    yield record
                if record.offset + 1 >= ends[record.partition]:
                    open_.discard(record.partition)
            if time.monotonic() - heard > _IDLE_S:
                raise Away(f"topic {topic} gave nothing for {_IDLE_S:.0f} s before its end")
    finally:
        consumer.close()
