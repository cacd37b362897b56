"""An OTLP/gRPC endpoint as a collector offers it: what services export arrives here, over the wire, and can be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from servicekit.testing.waiting import LONGEST_S


@dataclass(frozen=True)
class Span:
    """A span as it was exported; ids are hex, "" for no parent."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: frozenset[tuple[str, str]]
    """(trace id, span id) of what it links to."""
    failed: bool
    started_ns: int
    ended_ns: int


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span it gets. Use as a context manager; `endpoint` is what OPENLEDGER_OTLP_ENDPOINT takes."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._came = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(1).wait()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """The one method of OTLP's trace service."""
        spans = [
            _span(str(_value_of(of_resource.resource.attributes, "service.name")), span)
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        with self._came:
            self._spans += spans
            self._came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        """All that came so far."""
        with self._came:
            return list(self._spans)

    def wait(self, until: Callable[[list[Span]], bool], timeout_s: float = LONGEST_S) -> bool:
        """Whether what came fulfils a condition within that time."""
        with self._came:
            return self._came.wait_for(lambda: until(list(self._spans)), timeout_s)


def _span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={pair.key: _plain(pair.value) for pair in span.attributes},
        links=frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
    )


def _value_of(attributes: Any, key: str) -> Any:
    return next((_plain(pair.value) for pair in attributes if pair.key == key), "")


def _plain(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
