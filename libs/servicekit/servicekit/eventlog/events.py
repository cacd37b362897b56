"""Events: protobuf messages with a type, a time, a source and an id that never changes.

On the wire an event is a CloudEvent in binary mode (cloudevents.io, Kafka protocol binding 1.0.2): the attributes are record
headers `ce_*`, the value holds the message's bytes, and `traceparent` (W3C Trace Context) links the consumer's work to the
producer's. `ce_type` is the full proto name of the message, so it determines how to decode the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from ulid import ULID

from servicekit.eventlog.base import InRecord, OutRecord, Topic

M = TypeVar("M", bound=Message)

SPEC_VERSION = "1.0"
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, kw_only=True)
class Event(Generic[M]):
    """Something that happened. The `id` is assigned once, and every repeat of the event has the same one."""

    id: str
    type: str
    """Full proto name of the message."""
    source: str
    """The service that published it, for example `openledger/datanet`."""
    time: datetime
    """When it was made, UTC."""
    topic: str
    key: str
    """Events with the same key are delivered in the order in which they were made."""
    message: M
    traceparent: str | None = None
    """Of the span that made it; for a handler, of the span in which it is handled."""


class InvalidEvent(Exception):
    """The event can never be processed: its bytes or its content are wrong. It goes to the dead-letter topic.

    A handler raises it for a message that no later state of this service could accept. For an event that may succeed later
    (a database is down, a previous event has not arrived) it raises any other exception, and the event is retried.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """`reason` is UPPER_SNAKE and stable, for metrics and operators; `detail` is for people."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownEventType(Exception):
    """This program does not know the event's type, which a newer producer sent. The event is skipped and counted."""

    def __init__(self, event_type: str) -> None:
        super().__init__(f"event type {event_type!r} is not known here")
        self.event_type = event_type


def new_event(topic: Topic | str, key: str, message: M, source: str) -> Event[M]:
    """Returns a new event with a new id, the current time, and the caller's trace.

    Raises ValueError when the topic's registry entry does not list the message's type.
    """
    event_type = message.DESCRIPTOR.full_name
    if isinstance(topic, Topic):
        if topic.messages and event_type not in topic.messages:
            raise ValueError(f"{event_type} does not belong in {topic.name}: it holds {topic.messages}")
        topic = topic.name
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return Event(
        id=str(ULID()),
        type=event_type,
        source=source,
        time=datetime.now(UTC),
        topic=topic,
        key=key,
        message=message,
        traceparent=carrier.get("traceparent"),
    )


def to_record(event: Event[Any]) -> OutRecord:
    """Returns the record that carries the event."""
    headers = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", event.id),
        ("ce_type", event.type),
        ("ce_source", event.source),
        ("ce_time", event.time.astimezone(UTC).isoformat().replace("+00:00", "Z")),
        ("content-type", "application/protobuf"),
    ]
    if event.traceparent:
        headers.append(("traceparent", event.traceparent))
    return OutRecord(
        topic=event.topic,
        key=event.key.encode(),
        value=event.message.SerializeToString(),
        headers=tuple((name, value.encode()) for name, value in headers),
    )


def from_record(record: InRecord) -> Event[Any]:
    """Returns the event that a record carries.

    Raises InvalidEvent when the record is damaged, a header is missing or wrong, or the bytes are not a message of the type;
    UnknownEventType when no imported generated module declares the type.
    """
    if record.damage:
        raise InvalidEvent("DAMAGED", record.damage)
    headers = dict(record.headers)
    try:
        attributes = {
            name: headers[f"ce_{name}"].decode() for name in ("specversion", "id", "type", "source", "time")
        }
        key = record.key.decode()
        time = datetime.fromisoformat(attributes["time"])
        traceparent = headers["traceparent"].decode() if "traceparent" in headers else None
    except KeyError as error:
        raise InvalidEvent("MISSING_HEADER", f"header {error.args[0]} is missing") from None
    except ValueError as error:
        raise InvalidEvent("BAD_HEADER", str(error)) from None
    if attributes["specversion"] != SPEC_VERSION:
        raise InvalidEvent(
            "BAD_HEADER", f"ce_specversion is {attributes['specversion']!r}, not {SPEC_VERSION}"
        )
    if not attributes["id"] or len(attributes["id"]) > 64 or time.tzinfo is None:
        raise InvalidEvent("BAD_HEADER", "ce_id must have 1 to 64 characters, and ce_time a zone")
    return Event(
        id=attributes["id"],
        type=attributes["type"],
        source=attributes["source"],
        time=time.astimezone(UTC),
        topic=record.topic,
        key=key,
        message=_decode(attributes["type"], record.value),
        traceparent=traceparent,
    )


def is_known(event_type: str) -> bool:
    """Returns whether an imported generated module declares the type."""
    try:
        descriptor_pool.Default().FindMessageTypeByName(event_type)
    except KeyError:
        return False
    return True


def _decode(event_type: str, value: bytes) -> Message:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(event_type)
    except KeyError:
        raise UnknownEventType(event_type) from None
    message = message_factory.GetMessageClass(descriptor)()
    try:
        message.ParseFromString(value)
    except DecodeError as error:
        raise InvalidEvent(
            "UNDECODABLE", f"{len(value)} bytes are not a message {event_type}: {error}"
        ) from None
    return message
