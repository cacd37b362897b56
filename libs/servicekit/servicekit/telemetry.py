"""Traces through calls and events, and the logs that belong to them.

A trace's context travels as W3C ``traceparent``: in gRPC metadata from call to call, in event headers from service to
service. Spans are sent by OTLP where an endpoint is set; without one they still give logs their trace ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servicekit.logs import configure_logs
from servicekit.settings import ServiceSettings

tracer = trace.get_tracer("openledger")
"""Where spans begin: ``with tracer.start_as_current_span("seal snapshot"):``."""

_propagator = TraceContextTextMapPropagator()


def configure(service: str, settings: ServiceSettings) -> None:
    """Sets up logs and traces of this process; a second call changes the logs only (OpenTelemetry allows one set-up)."""
    configure_logs(service, settings.log_level, settings.log_format)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    provider = TracerProvider(resource=Resource.create({"service.name": f"openledger-{service}"}))
    if settings.otlp_endpoint is not None:
        # Here, so that programs without an endpoint do not load the exporter (0.2 s).
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        plain = settings.otlp_endpoint.startswith("http://")
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(settings.otlp_endpoint, insecure=plain))
        )
    trace.set_tracer_provider(provider)


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


def current_traceparent() -> str:
    """The current ``traceparent``, for an event's header; empty outside of a trace."""
    return inject().get("traceparent", "")


def current_trace_id() -> str:
    """The current trace's id, 32 hex digits; zeros outside of a trace."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
