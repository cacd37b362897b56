"""Traces of calls and events.

A trace's context is passed on as W3C ``traceparent``: in gRPC metadata between calls, in event headers between services, and in
database rows between a step and a later step that continues its work. With an endpoint, spans are sent by OTLP. Without one, a
trace that begins here is not recorded, which saves the cost, but it still has an id for the logs. A trace that a caller records
is passed on as recorded.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from typing import TYPE_CHECKING
from uuid import uuid4

from opentelemetry import context as current_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servicekit.deadlines import LAST_EXPORT_S
from servicekit.settings import ServiceSettings
from servicekit.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from servicekit.telemetry.export import Export

tracer = trace.get_tracer("openledger")
"""Starts spans: ``with tracer.start_as_current_span("seal snapshot"):``."""

_propagator = TraceContextTextMapPropagator()
_ids = RandomIdGenerator()
_export: Export | None = None
"""Sends the spans of this process, when it has an endpoint."""
_UNRECORDED = re.compile("00-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
"""A ``traceparent`` of a trace that the caller does not record: the lowest flag is not set."""


def configure(service: str, settings: ServiceSettings) -> None:
    """Sets up logs and traces of this process. A second call changes only the logs: OpenTelemetry allows one set-up."""
    configure_logs(service, settings.log_level, settings.log_format)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        _provide(service, settings.otlp_endpoint, settings.trace_ratio)


def configure_client(name: str, otlp_endpoint: str | None) -> None:
    """Sets up traces of a program that only calls services. Without an endpoint it does nothing.

    Pending spans are sent when the process ends.
    """
    if otlp_endpoint and not isinstance(trace.get_tracer_provider(), TracerProvider):
        _provide(name, otlp_endpoint, 1.0)


def _provide(name: str, otlp_endpoint: str | None, ratio: float) -> None:
    resource = Resource.create(
        {
            "service.name": f"openledger-{name}",
            "service.namespace": "openledger",
            "service.instance.id": str(uuid4()),
        }
    )
    # Its own handler at the exit of the process waits 30 s for a collector that does not answer.
    provider = TracerProvider(
        resource=resource, sampler=_sampler(otlp_endpoint, ratio), shutdown_on_exit=False
    )
    if otlp_endpoint is not None:
        global _export
        # Imported here, so that programs without an endpoint do not load the exporter (0.2 s).
        from servicekit.telemetry.export import Export

        _export = Export(otlp_endpoint)
        provider.add_span_processor(_export.processor)
        atexit.register(_export.close, LAST_EXPORT_S)
    trace.set_tracer_provider(provider)


def _sampler(otlp_endpoint: str | None, ratio: float) -> Sampler:
    """Returns a sampler by which the service that begins a trace decides for all others, or traces would have gaps."""
    return ParentBased(ALWAYS_OFF if otlp_endpoint is None else TraceIdRatioBased(ratio))


def flush(timeout_s: float = LAST_EXPORT_S) -> None:
    """Sends pending spans, for at most this time. Called when a service ends."""
    if _export is not None:
        _export.flush(timeout_s)


def inject() -> dict[str, str]:
    """Returns the current trace as headers (``traceparent``, perhaps ``tracestate``); empty outside of a trace."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return headers


def extract(headers: Mapping[str, str] | Iterable[tuple[str, str | bytes]]) -> Context:
    """Returns the context of the trace in headers or gRPC metadata; an empty context when there is none."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    texts = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in pairs
        if key.startswith("trace")
    }
    return _propagator.extract(texts, context=Context())


def begin_unrecorded(headers: Iterable[tuple[str, str | bytes]]) -> Token[Context] | None:
    """Continues a caller's trace that is not recorded, or begins one, and returns a token for `end_unrecorded`.

    Returns None when the trace may be recorded; then a span is needed. Most calls of a process without an endpoint are not
    recorded, and this gives their logs an id at a tenth of the cost of a span.
    """
    if _export is not None:
        return None
    trace_id = 0
    for key, value in headers:
        if key == "tracestate":
            return None  # a span passes it on
        if key == "traceparent":
            known = _UNRECORDED.fullmatch(value) if isinstance(value, str) else None
            if known is None:
                return None  # recorded or malformed: OpenTelemetry decides
            trace_id = int(known[1], 16)
    context = SpanContext(trace_id or _ids.generate_trace_id(), _ids.generate_span_id(), is_remote=False)
    return current_context.attach(trace.set_span_in_context(NonRecordingSpan(context), Context()))


def end_unrecorded(token: Token[Context]) -> None:
    """Undoes `begin_unrecorded`."""
    current_context.detach(token)


def context_of(traceparent: str | None) -> Context:
    """Returns the context of a ``traceparent``; an empty context when it is missing or malformed."""
    return extract({"traceparent": traceparent} if traceparent else {})


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Continues a trace without a new span, for the logs and events of work that is too small for a span."""
    token = current_context.attach(context_of(traceparent))
    try:
        yield
    finally:
        current_context.detach(token)


def links_to(traceparents: Iterable[str | None]) -> list[Link]:
    """Returns links to other traces, each once, for work with several causes: a span can have only one parent."""
    contexts = (
        trace.get_current_span(context_of(each)).get_span_context() for each in dict.fromkeys(traceparents)
    )
    return [Link(context) for context in contexts if context.is_valid]


def current_traceparent() -> str:
    """Returns the current ``traceparent`` (55 characters) for an event's header or a row; empty outside of a trace."""
    return inject().get("traceparent", "")


def traceparent_of(span: trace.Span) -> str:
    """The ``traceparent`` of a span, current or not."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


def current_trace_id() -> str:
    """Returns the id of the current trace (32 hex digits); zeros outside of a trace."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
