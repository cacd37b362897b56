"""The span of a call that a client makes: it begins the trace, or goes on with the one its program is in."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from servicekit import telemetry
from servicekit.spans import end_rpc, rpc_attributes


class ClientSpan:
    """Of one call, in whichever of gRPC's forms; it ends when the call does, of a stream with its last response."""

    def __init__(self, method: str, address: str) -> None:
        host, _, port = address.rpartition(":")
        attributes: dict[str, Any] = {**rpc_attributes(method), "server.address": host or address}
        if port.isdigit():
            attributes["server.port"] = int(port)
        self._span: Span = telemetry.tracer.start_span(
            method.removeprefix("/"), kind=SpanKind.CLIENT, attributes=attributes
        )

    def headers(self) -> dict[str, str]:
        """What tells the server of it."""
        with trace.use_span(self._span):
            return telemetry.inject()

    def raised(self, error: grpc.RpcError) -> None:
        """The call failed before it returned."""
        code = getattr(error, "code", None)  # what it is in fact is a grpc.Call as well
        self._end(grpc.StatusCode.UNKNOWN if code is None else code())

    def ends_with(self, result: Any) -> None:
        """`result` is what the call returned: a response, or something that is still going on."""
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
            asyncio.ensure_future(code).add_done_callback(lambda known: self._end(known.result()))
        else:
            self._end(code)

    def _end(self, code: grpc.StatusCode) -> None:
        """To a caller every code but OK is a failure (semantic conventions for RPC clients)."""
        end_rpc(self._span, code, failed=code is not grpc.StatusCode.OK)
        self._span.end()
