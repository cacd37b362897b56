"""Spans of calls and of events, named and described by OpenTelemetry's semantic conventions (rpc.*, messaging.*).

An event's spans are children of the span in which the event was made. The event's `traceparent` header holds that context and
never changes. The spans are `send`, when the event enters the event log, and `process`, when a consumer handles it. So a
repeat, a dead letter and a redrive all belong to the original trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import grpc
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from servicekit.eventlog.base import InRecord, OutRecord
from servicekit.telemetry import traces as telemetry


def rpc_attributes(method: str) -> dict[str, str]:
    """Returns the attributes of a method, named as in gRPC: `/package.Service/Method`."""
    return {"rpc.system.name": "grpc", "rpc.method": method.removeprefix("/")}


def end_rpc(span: Span, code: grpc.StatusCode, failed: bool) -> None:
    """Sets the attributes of an RPC's outcome. The span must still be open."""
    span.set_attribute("rpc.response.status_code", code.name)
    if failed:
        span.set_attribute("error.type", code.name)
        span.set_status(Status(StatusCode.ERROR))


@contextmanager
def sending(system: str, records: Sequence[OutRecord]) -> Iterator[None]:
    """Opens a span for each record whose trace is recorded, while the block sends the records."""
    with ExitStack() as spans:
        for record in records:
            parent = next((value for name, value in record.headers if name == "traceparent"), b"")
            if _is_recorded(parent):
                spans.enter_context(_send(system, record, parent, len(records)))
        yield


def _is_recorded(traceparent: bytes) -> bool:
    """Returns whether the lowest bit of the flags is set; the other bits have other meanings."""
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
    """Returns the span of a handler, in the trace in which the event was made. An exception marks it as an error."""
    return telemetry.tracer.start_as_current_span(**_process(system, group, record))


@contextmanager
def processing_batch(system: str, group: str, records: Sequence[InRecord]) -> Iterator[list[str]]:
    """Opens a span for each event whose trace is recorded, while a handler handles the events. Yields their traceparents.

    None of them is the current span, because work for all events together belongs to no single trace.
    """
    traceparents = [_text(record.headers, "traceparent") for record in records]
    with ExitStack() as spans:
        for index, record in enumerate(records):
            if _is_recorded(traceparents[index].encode()):
                options = _process(system, group, record)
                options["attributes"]["messaging.batch.message_count"] = len(records)
                span = spans.enter_context(_ended(telemetry.tracer.start_span(**options)))
                traceparents[index] = telemetry.traceparent_of(span)
        yield traceparents


@contextmanager
def _ended(span: Span) -> Iterator[Span]:
    """Ends a span that is not the current one; an exception makes it an error."""
    try:
        yield span
    except Exception as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        raise
    finally:
        span.end()


def _process(system: str, group: str, record: InRecord) -> dict[str, Any]:
    """Returns name, parent, kind and attributes of the span of an event's handling."""
    attributes: dict[str, Any] = {
        **_messaging(system, "process", record.topic),
        "messaging.consumer.group.name": group,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.message.id": _text(record.headers, "ce_id"),
        "messaging.message.body.size": len(record.value),
    }
    if system == "kafka":
        attributes["messaging.kafka.offset"] = record.offset
    return {
        "name": f"process {record.topic}",
        "context": telemetry.context_of(_text(record.headers, "traceparent")),
        "kind": SpanKind.CONSUMER,
        "attributes": attributes,
    }


def _messaging(system: str, operation: str, topic: str) -> dict[str, str]:
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _text(headers: tuple[tuple[str, bytes], ...], name: str) -> str:
    return dict(headers).get(name, b"").decode(errors="replace")
