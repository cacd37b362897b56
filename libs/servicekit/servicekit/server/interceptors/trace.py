"""A span for each RPC, in the caller's trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.trace import SpanKind

from servicekit import telemetry
from servicekit.server.call import Call
from servicekit.spans import end_rpc, rpc_attributes

# Failures of ours, not of the caller's request (OpenTelemetry's semantic conventions for RPC servers).
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
    """Health checks and reflection are left out: there are many and they tell nothing."""
    if call.method.startswith("/grpc."):
        yield
        return
    metadata = call.context.invocation_metadata() or ()
    unrecorded = telemetry.begin_unrecorded(metadata)
    if unrecorded is not None:
        try:
            yield
        finally:
            telemetry.end_unrecorded(unrecorded)
        return
    with telemetry.tracer.start_as_current_span(
        call.method.removeprefix("/"),
        context=telemetry.extract(metadata),
        kind=SpanKind.SERVER,
        attributes=rpc_attributes(call.method),
        record_exception=False,  # a domain error is an answer; the errors interceptor logs the others
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            end_rpc(span, call.code, call.code in _FAULTS)
