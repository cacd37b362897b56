"""A span for each call, in the caller's trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from servicekit.server.call import Call
from servicekit.telemetry import traces as telemetry

# Failures of the server, not of the caller's request (OpenTelemetry's semantic conventions for servers).
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


@asynccontextmanager
async def trace(call: Call) -> AsyncIterator[None]:
    """Opens the span of the call. Health checks and reflection have none: they are frequent and not informative."""
    if call.method.startswith("/grpc."):
        yield
        return
    headers = call.headers()
    unrecorded = telemetry.begin_unrecorded(headers)
    if unrecorded is not None:
        try:
            yield
        finally:
            telemetry.end_unrecorded(unrecorded)
        return
    with telemetry.tracer.start_as_current_span(
        call.span_name(),
        context=telemetry.extract(headers),
        kind=SpanKind.SERVER,
        attributes=call.span_attributes(),
        record_exception=False,  # a domain error is a response; the errors step logs other errors
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            _end(span, call)


def _end(span: Span, call: Call) -> None:
    for name, value in call.outcome_attributes().items():
        span.set_attribute(name, value)
    if call.code in _FAULTS:
        span.set_attribute("error.type", call.code.name)
        span.set_status(Status(StatusCode.ERROR))
