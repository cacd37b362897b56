"""Spans of calls and of events, named and described by OpenTelemetry's semantic conventions (rpc.*, messaging.*).

An event's spans are children of the one in which it was made, whose context stands in its `traceparent` header and never
changes: `send` when it enters the event log, `process` when a consumer lets it take effect. So a repeat, a dead letter and
a replay belong to the trace of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import grpc
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from servicekit import telemetry
from servicekit.eventlog.base import InRecord, OutRecord


def rpc_attributes(method: str) -> dict[str, str]:
    """Of a method as gRPC writes it: `/package.Service/Method`."""
    return {"rpc.system.name": "grpc", "rpc.method": method.removeprefix("/")}


def end_rpc(span: Span, code: grpc.StatusCode, failed: bool) -> None:
    """Writes down an RPC's outcome; the span may still be open."""
    span.set_attribute("rpc.response.status_code", code.name)
    if failed:
        span.set_attribute("error.type", code.name)
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def sending(system: str, records: Sequence[OutRecord]) -> Iterator[None]:
    """Around the sending of records that were made before: a span for each whose trace is recorded."""
    with ExitStack() as spans:
        for record in records:
            parent = next((value for name, value in record.headers if name == "traceparent"), b"")
            if _is_recorded(parent):
                spans.enter_context(_send(system, record, parent, len(records)))
        yield


def _is_recorded(traceparent: bytes) -> bool:
    """The lowest bit of its flags; the others mean something else and more may come."""
    return traceparent[-1:] in b"13579bdf" and traceparent != b""


def _send(system: str, record: OutRecord, parent: bytes, together: int) -> AbstractContextManager[Span]:
    attributes: dict[str, Any] = {
        **_messaging(system, "send", record.topic),
        "messaging.message.id": _text(record.headers, "ce_id"),
        "messaging.message.body.size": len(record.value),
        "messaging.batch.message_count": together,
    }
    return telemetry.tracer.start_as_current_span(
        f"send {record.topic}",
        context=telemetry.context_of(parent.decode(errors="replace")),
        kind=SpanKind.PRODUCER,
        attributes=attributes,
    )


def processing(system: str, group: str, record: InRecord) -> AbstractContextManager[Span]:
    """Around a handler, in the trace that made the event; an exception makes it an error."""
    attributes: dict[str, Any] = {
        **_messaging(system, "process", record.topic),
        "messaging.consumer.group.name": group,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.message.id": _text(record.headers, "ce_id"),
        "messaging.message.body.size": len(record.value),
    }
    if system == "kafka":
        attributes["messaging.kafka.offset"] = record.offset
    return telemetry.tracer.start_as_current_span(
        f"process {record.topic}",
        context=telemetry.context_of(_text(record.headers, "traceparent")),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
    )


def _messaging(system: str, operation: str, topic: str) -> dict[str, str]:
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _text(headers: tuple[tuple[str, bytes], ...], name: str) -> str:
    return dict(headers).get(name, b"").decode(errors="replace")
