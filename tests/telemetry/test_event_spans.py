"""An event that is sent or processed is a span in the trace that made it, when that trace is recorded."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from openledger_testing.recorded_spans import named, recording, trace_id
from servicekit.eventlog import InRecord, OutRecord
from servicekit.telemetry import traces as telemetry
from servicekit.telemetry.spans import processing, processing_batch, sending

TRACE = "0af7651916cd43dd8448eb211c80319c"


def headers(flags: str) -> tuple[tuple[str, bytes], ...]:
    return (("ce_id", b"01"), ("traceparent", f"00-{TRACE}-b7ad6b7169203331-{flags}".encode()))


@pytest.mark.parametrize(("flags", "spans"), [("01", 1), ("03", 1), ("ff", 1), ("00", 0), ("02", 0)])
def test_the_lowest_flag_alone_says_whether_it_is_recorded(flags: str, spans: int) -> None:
    with recording() as seen:
        with sending("kafka", [OutRecord("a.b.v1", b"k", b"v", headers(flags))]):
            pass
        assert len(named(seen, "send a.b.v1")) == spans


def test_each_of_a_batch_is_in_its_own_trace_and_one_without_is_left_out() -> None:
    plain = OutRecord("a.b.v1", b"k", b"v", (("ce_id", b"02"),))
    malformed = OutRecord("a.b.v1", b"k", b"v", (("ce_id", b"03"), ("traceparent", b"1")))
    with recording() as seen:
        with sending("kafka", [OutRecord("a.b.v1", b"k", b"value", headers("01")), plain]):
            pass
        (span,) = named(seen, "send a.b.v1")
        assert span.kind is SpanKind.PRODUCER
        assert trace_id(span) == int(TRACE, 16)
        assert span.attributes is not None
        assert span.attributes["messaging.message.body.size"] == 5
        assert span.attributes["messaging.batch.message_count"] == 2
        with sending("kafka", [malformed]):
            pass  # an invalid traceparent begins a trace of its own, which is not recorded
        assert len(named(seen, "send a.b.v1")) == 1


def test_a_send_that_fails_is_a_failed_span() -> None:
    with recording() as seen:
        with (
            pytest.raises(ConnectionError),
            sending("kafka", [OutRecord("a.b.v1", b"k", b"v", headers("01"))]),
        ):
            raise ConnectionError("the broker is down")
        assert named(seen, "send a.b.v1")[0].status.status_code is StatusCode.ERROR


def test_what_a_handler_begins_belongs_to_the_trace_of_its_event() -> None:
    record = InRecord(
        topic="a.b.v1", partition=2, offset=7, timestamp_ms=0, key=b"k", value=b"v", headers=headers("01")
    )
    with recording() as seen:
        with processing("kafka", "group", record):
            assert telemetry.current_traceparent().split("-")[1] == TRACE
        (span,) = named(seen, "process a.b.v1")
        assert span.kind is SpanKind.CONSUMER
        assert span.attributes is not None
        assert span.attributes["messaging.destination.partition.id"] == "2"
        assert span.attributes["messaging.kafka.offset"] == 7


def test_each_of_a_handled_batch_is_in_its_own_trace_and_names_the_next_parent() -> None:
    def arrived(offset: int, flags: str) -> InRecord:
        return InRecord(
            topic="a.b.v1",
            partition=2,
            offset=offset,
            timestamp_ms=0,
            key=b"k",
            value=b"v",
            headers=headers(flags),
        )

    with recording() as seen:
        with processing_batch("kafka", "group", [arrived(7, "01"), arrived(8, "00")]) as traceparents:
            pass
        (span,) = named(seen, "process a.b.v1")
        assert (span.kind, trace_id(span)) == (SpanKind.CONSUMER, int(TRACE, 16))
        assert span.attributes is not None
        assert span.attributes["messaging.batch.message_count"] == 2
        assert traceparents[0] == f"00-{TRACE}-{span.get_span_context().span_id:016x}-01"
        assert traceparents[1] == f"00-{TRACE}-b7ad6b7169203331-00"


def test_a_handled_batch_that_fails_is_a_failed_span_of_each() -> None:
    record = InRecord(
        topic="a.b.v1", partition=2, offset=7, timestamp_ms=0, key=b"k", value=b"v", headers=headers("01")
    )
    with recording() as seen:
        with pytest.raises(ValueError), processing_batch("kafka", "group", [record, record]):
            raise ValueError("one of them is wrong")
        statuses = [span.status.status_code for span in named(seen, "process a.b.v1")]
        assert statuses == [StatusCode.ERROR, StatusCode.ERROR]
