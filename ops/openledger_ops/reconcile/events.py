"""Events: everything in a topic and in its producer's outbox, read outside any consumer group of the platform."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from openledger.audit.v1.audit_pb2 import OutboxEvent
from ulid import ULID

from openledger_client.services import Service
from openledger_ops.reconcile.book import Book, Unreachable
from openledger_ops.reconcile.facts import Facts
from servicekit.eventlog import EventLog, InRecord, Topic, UnknownTopic
from servicekit.eventlog.events import InvalidEvent, UnknownEventType, from_record

READABLE = "event readable"
_ID_SHOWN = 64
_IDLE_S = 60.0
"""A topic that returns nothing for so long, before its end, is given up."""

M = TypeVar("M", bound=Message)
K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Generic[K]):
    """An event. Of its message only what reconciliation needs is kept: a topic may hold millions."""

    partition: int
    """-1 while it waits in an outbox."""
    offset: int
    event_id: str
    kept: K


@dataclass(frozen=True)
class Events:
    """The event log, and the facts of the services that write to it."""

    log: EventLog
    facts: Mapping[Service[Any], Facts]
    book: Book
    """Where an event that cannot be read is named."""

    def published(
        self, topic: Topic, producer: Service[Any], kind: type[M], keep: Callable[[M], K]
    ) -> list[Published[K]]:
        """Returns the events of one type in a topic, each once: those in the log, in its order, then the outbox's.

        One that cannot be read becomes a finding, and the rest is read. `keep` raises ValueError for a message that says what
        no event can say.
        """
        found: dict[str, Published[K]] = {}
        name = kind.DESCRIPTOR.full_name
        for record in valid(self.log, topic.name, self.book):
            headers = dict(record.headers)
            if headers["ce_type"].decode() == name:
                event_id = headers["ce_id"].decode()
                with self._reading(position(record), event_id):
                    kept = keep(kind.FromString(record.value))
                    event = Published(
                        partition=record.partition, offset=record.offset, event_id=event_id, kept=kept
                    )
                    found.setdefault(event_id, event)
        for waiting in self.facts[producer].of(OutboxEvent):
            if (waiting.topic, waiting.event_type) == (topic.name, name):
                with self._reading(f"{topic.name} in the outbox of {producer}", waiting.event_id):
                    kept = keep(kind.FromString(waiting.value))
                    event = Published(partition=-1, offset=-1, event_id=waiting.event_id, kept=kept)
                    found.setdefault(waiting.event_id, event)
        return list(found.values())

    @contextmanager
    def _reading(self, where: str, event_id: str) -> Iterator[None]:
        try:
            yield
        except (DecodeError, ValueError, OverflowError) as error:
            self.book.invalid(READABLE, f"{where}, id {event_id[:_ID_SHOWN]}", str(error))


def valid(log: EventLog, topic: str, book: Book) -> Iterator[InRecord]:
    """Yields the records of a topic that are events, as every consumer judges it; the others become findings.

    Consumers move such a record to the dead letters and continue, so a platform may well hold some.
    """
    for record in records(log, topic):
        book.saw(READABLE, 1)
        try:
            from_record(record)
        except UnknownEventType:  # of a later release: its headers are those of an event
            pass
        except InvalidEvent as error:
            event_id = dict(record.headers).get("ce_id", b"").decode(errors="replace")[:_ID_SHOWN]
            book.invalid(READABLE, f"{position(record)}, id {event_id or 'none'}", str(error))
            continue
        yield record


def position(record: InRecord) -> str:
    """Returns where a record is, for people."""
    return f"{record.topic} partition {record.partition} offset {record.offset}"


def records(log: EventLog, topic: str) -> Iterator[InRecord]:
    """Yields what a topic held when it was asked, repeats included; nothing when the topic does not exist.

    Raises:
        Unreachable: the log returned nothing more before the end of the topic.
        EventLogUnavailable: it does not answer.
    """
    # A group of its own that never commits: no one else's offsets or partitions are touched.
    group = f"reconcile-{ULID()}"
    try:
        kept = log.lag(group, topic)
        ends = log.end_offsets(topic)
    except UnknownTopic:
        return
    open_ = {partition for partition, count in kept.items() if count}
    consumer = log.consumer(group, [topic])
    try:
        last = time.monotonic()
        while open_:
            for record in consumer.poll(1.0):
                last = time.monotonic()
                if record.offset < ends[record.partition]:
                    yield record
                if record.offset + 1 >= ends[record.partition]:
                    open_.discard(record.partition)
            if time.monotonic() - last > _IDLE_S:
                raise Unreachable(f"topic {topic} returned nothing for {_IDLE_S:.0f} s before its end")
    finally:
        consumer.close()
