"""Traces through calls and events, and the logs that belong to them.

A trace's context travels as W3C ``traceparent``: in gRPC metadata from call to call, in event headers from service to
service, and in a row of the database from the step that wrote it to the one that goes on with it later. Spans are sent by
OTLP where an endpoint is set. Without one a trace that begins here is not recorded, which saves what recording costs, but
has an id all the same, for the logs; one that a recording caller began is passed on as recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
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

from servicekit.logs import configure_logs
from servicekit.settings import ServiceSettings

tracer = trace.get_tracer("openledger")
"""Where spans begin: ``with tracer.start_as_current_span("seal snapshot"):``."""

_propagator = TraceContextTextMapPropagator()
_ids = RandomIdGenerator()
_exports = False
"""Whether spans of this process are sent anywhere."""
_UNRECORDED = re.compile("00-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
"""A caller's trace that it does not record: the lowest flag is not set."""


def configure(service: str, settings: ServiceSettings) -> None:
    """Sets up logs and traces of this process; a second call changes the logs only (OpenTelemetry allows one set-up)."""
    configure_logs(service, settings.log_level, settings.log_format)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        _provide(service, settings.otlp_endpoint, settings.trace_ratio)


def configure_client(name: str, otlp_endpoint: str | None) -> None:
    """Sets up traces of a program that only calls services; without an endpoint nothing is set up and nothing costs.

    What waits is sent when the process ends.
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
    provider = TracerProvider(resource=resource, sampler=_sampler(otlp_endpoint, ratio))
    if otlp_endpoint is not None:
        global _exports
        _exports = True
        # Here, so that programs without an endpoint do not load the exporter (0.2 s).
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        plain = otlp_endpoint.startswith("http://")
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(otlp_endpoint, insecure=plain)))
    trace.set_tracer_provider(provider)


def _sampler(otlp_endpoint: str | None, ratio: float) -> Sampler:
    """Whoever begins a trace decides for all who go on with it, or traces would have holes."""
    return ParentBased(ALWAYS_OFF if otlp_endpoint is None else TraceIdRatioBased(ratio))


def flush(timeout_s: float = 5.0) -> None:
    """Sends the spans that wait; at the end of a process."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(int(timeout_s * 1000))


def inject() -> dict[str, str]:
    """The current trace as headers: ``traceparent``, perhaps ``tracestate``; empty outside of a trace."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return headers


def extract(headers: Mapping[str, str] | Iterable[tuple[str, str | bytes]]) -> Context:
    """The trace that headers or gRPC metadata tell of; an empty context where they tell of none."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    texts = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in pairs
        if key.startswith("trace")
    }
    return _propagator.extract(texts, context=Context())


def begin_unrecorded(headers: Iterable[tuple[str, str | bytes]]) -> Token[Context] | None:
    """Goes on in a caller's trace, or in a new one, that nobody records: `end_unrecorded` takes the token.

    None where somebody may record it: then a span is needed. Most calls of a process without an endpoint come here, and an
    id for the logs is had for a tenth of what a span costs.
    """
    if _exports:
        return None
    trace_id = 0
    for key, value in headers:
        if key == "tracestate":
            return None  # it must be passed on, which a span knows how to
        if key == "traceparent":
            known = _UNRECORDED.fullmatch(value) if isinstance(value, str) else None
            if known is None:
                return None  # recorded, or not well formed: whoever knows all the rules decides
            trace_id = int(known[1], 16)
    context = SpanContext(trace_id or _ids.generate_trace_id(), _ids.generate_span_id(), is_remote=False)
    return current_context.attach(trace.set_span_in_context(NonRecordingSpan(context), Context()))


def end_unrecorded(token: Token[Context]) -> None:
    """Undoes `begin_unrecorded`."""
    current_context.detach(token)


def context_of(traceparent: str | None) -> Context:
    """The trace that a ``traceparent`` tells of; an empty context for none, and for one that is not well formed."""
    return extract({"traceparent": traceparent} if traceparent else {})


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Goes on in a trace without a span of its own: for the log lines and the events of what is too small for one."""
    token = current_context.attach(context_of(traceparent))
    try:
        yield
    finally:
        current_context.detach(token)


def links_to(traceparents: Iterable[str | None]) -> list[Link]:
    """Links to other traces, each named once: for work that has several causes and can be the child of one only."""
    contexts = (
        trace.get_current_span(context_of(each)).get_span_context() for each in dict.fromkeys(traceparents)
    )
    return [Link(context) for context in contexts if context.is_valid]


def current_traceparent() -> str:
    """The current ``traceparent``, 55 characters, for an event's header or a row; empty outside of a trace."""
    return inject().get("traceparent", "")


def current_trace_id() -> str:
    """The current trace's id, 32 hex digits; zeros outside of a trace."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
