"""The span of a call: it continues the trace of the calling program, or begins one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_tracer = trace.get_tracer("openledger")
_propagator = TraceContextTextMapPropagator()


class ClientSpan:
    """The span of one call of any of gRPC's kinds. It ends with the call: for a stream, with its last response."""

    def __init__(self, method: str, address: str) -> None:
        host, _, port = address.rpartition(":")
        name = method.removeprefix("/")
        attributes: dict[str, Any] = {
            "rpc.system.name": "grpc",
            "rpc.method": name,
            "server.address": host or address,
        }
        if port.isdigit():
            attributes["server.port"] = int(port)
        self._span: Span = _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def headers(self) -> dict[str, str]:
        """Returns the headers by which the server continues the trace."""
        headers: dict[str, str] = {}
        with trace.use_span(self._span):
            _propagator.inject(headers)
        return headers

    def failed(self, error: grpc.RpcError) -> None:
        """Ends the span of a call that raised instead of returning."""
        code = getattr(error, "code", None)  # in fact it is a grpc.Call too
        self._end(grpc.StatusCode.UNKNOWN if code is None else code())

    def ends_with(self, result: Any) -> None:
        """Ends the span when `result` ends: a response has ended, a future or a stream ends later."""
        if not self._span.is_recording():
            return
        if hasattr(result, "add_done_callback"):  # a future, a stream, everything of grpc.aio
            result.add_done_callback(self._done)
        elif not hasattr(result, "add_callback"):
            self._end(grpc.StatusCode.OK)
        elif not result.add_callback(lambda: self._done(result)):
            self._done(result)

    def _done(self, call: Any) -> None:
        code = call.code()
        if asyncio.iscoroutine(code):
            known = asyncio.ensure_future(code)
            known.add_done_callback(lambda done: self._end(done.result()))  # waits: not at all, it is done
        else:
            self._end(code)

    def _end(self, code: grpc.StatusCode) -> None:
        """For a client every code but OK is a failure (OpenTelemetry's conventions for RPC)."""
        self._span.set_attribute("rpc.response.status_code", code.name)
        if code is not grpc.StatusCode.OK:
            self._span.set_attribute("error.type", code.name)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
