"""A span for each RPC, in the caller's trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode

from servicekit import telemetry
from servicekit.server.call import Call

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
    _, service, method = call.method.split("/")
    with telemetry.tracer.start_as_current_span(
        f"{service}/{method}",
        context=telemetry.extract(call.context.invocation_metadata() or ()),
        kind=SpanKind.SERVER,
        attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        record_exception=False,  # a domain error is an answer; the errors interceptor logs the others
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            span.set_attribute("rpc.grpc.status_code", call.code.value[0])
            if call.code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
