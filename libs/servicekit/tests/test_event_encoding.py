"""Events travel as CloudEvents in binary mode and come back as they were."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from servicekit.delivery.dead_letters import dead_letter
from servicekit.delivery.redrive import read_letters, redriven
from servicekit.eventlog import InRecord, OutRecord, Topic
from servicekit.eventlog.events import (
    InvalidEvent,
    UnknownEventType,
    from_record,
    is_known,
    new_event,
    to_record,
)
from servicekit.wal import pack, unpack

TOPIC = Topic("area.thing.v1", messages=("google.protobuf.StringValue",))


def arrived(record: OutRecord, **changes: object) -> InRecord:
    return replace(
        InRecord(
            topic=record.topic,
            partition=0,
            offset=7,
            timestamp_ms=0,
            key=record.key,
            value=record.value,
            headers=record.headers,
        ),
        **changes,  # type: ignore[arg-type]
    )


def with_header(record: InRecord, name: str, value: bytes | None) -> InRecord:
    kept = tuple(pair for pair in record.headers if pair[0] != name)
    return replace(record, headers=kept if value is None else (*kept, (name, value)))


def test_event_comes_back_as_it_was_made() -> None:
    event = new_event(TOPIC, "things/ü", StringValue(value="hello"), "openledger/test")
    assert from_record(arrived(to_record(event))) == event
    assert event.type == "google.protobuf.StringValue"
    assert datetime.now(UTC) - event.time < timedelta(seconds=5)


def test_headers_are_those_of_a_cloud_event_in_binary_mode() -> None:
    event = new_event(TOPIC, "k", StringValue(value="x"), "openledger/test")
    headers = dict(to_record(event).headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"].decode() == event.id
    assert headers["ce_type"] == b"google.protobuf.StringValue"
    assert headers["ce_source"] == b"openledger/test"
    assert headers["ce_time"].endswith(b"Z")
    assert to_record(event).value == event.message.SerializeToString()


def test_two_events_have_two_ids() -> None:
    message = StringValue(value="same")
    assert new_event(TOPIC, "k", message, "s").id != new_event(TOPIC, "k", message, "s").id


def test_event_carries_the_trace_it_was_made_in() -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        event = new_event(TOPIC, "k", StringValue(), "s")
    assert event.traceparent == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert from_record(arrived(to_record(event))).traceparent == event.traceparent
    assert new_event(TOPIC, "k", StringValue(), "s").traceparent is None


def test_a_topic_takes_only_its_messages() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        new_event(TOPIC, "k", Struct(), "s")


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion"])
def test_a_missing_header_is_named(name: str) -> None:
    record = arrived(to_record(new_event(TOPIC, "k", StringValue(), "s")))
    with pytest.raises(InvalidEvent, match=name) as caught:
        from_record(with_header(record, name, None))
    assert caught.value.reason == "MISSING_HEADER"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_time", b"yesterday"),
        ("ce_time", b"2026-01-01T00:00:00"),  # no zone
        ("ce_id", b""),
        ("ce_id", b"x" * 65),
        ("ce_specversion", b"0.3"),
        ("ce_source", b"\xff"),
    ],
)
def test_a_wrong_header_is_invalid(name: str, value: bytes) -> None:
    record = arrived(to_record(new_event(TOPIC, "k", StringValue(), "s")))
    with pytest.raises(InvalidEvent) as caught:
        from_record(with_header(record, name, value))
    assert caught.value.reason == "BAD_HEADER"


def test_bytes_that_are_no_such_message_are_invalid() -> None:
    record = arrived(to_record(new_event(TOPIC, "k", StringValue(), "s")), value=b"\xff\xff\xff")
    with pytest.raises(InvalidEvent, match="3 bytes are no") as caught:
        from_record(record)
    assert caught.value.reason == "UNDECODABLE"


def test_a_type_from_the_future_is_unknown_not_invalid() -> None:
    record = with_header(
        arrived(to_record(new_event(TOPIC, "k", StringValue(), "s"))),
        "ce_type",
        b"openledger.future.v9.Thing",
    )
    with pytest.raises(UnknownEventType, match=r"openledger\.future\.v9\.Thing"):
        from_record(record)
    assert not is_known("openledger.future.v9.Thing")
    assert is_known("google.protobuf.StringValue")


NEWER = b"\x9a\x06\x05later"
"""Field 99 of a newer release's message: "later"."""


def test_fields_of_a_newer_release_are_kept_when_the_event_is_forwarded() -> None:
    record = to_record(new_event(TOPIC, "k", StringValue(value="x"), "s"))
    newer = arrived(record, value=record.value + NEWER)
    assert to_record(from_record(newer)).value == record.value + NEWER


def test_fields_of_a_newer_release_survive_dead_letters_a_redrive_and_the_write_ahead_log() -> None:
    record = to_record(new_event(TOPIC, "k", StringValue(value="x"), "s"))
    newer = arrived(record, value=record.value + NEWER)
    moved = dead_letter(newer, "group", InvalidEvent("REASON", "why"))
    (letter,) = read_letters([arrived(moved)], [])
    again = redriven(letter)
    assert again.value == record.value + NEWER
    assert from_record(arrived(again)) == from_record(newer)
    assert unpack(pack(again)) == again
