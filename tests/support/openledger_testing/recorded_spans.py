"""Spans of this very process, for tests that need no wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from servicekit.settings import ServiceSettings
from servicekit.telemetry import traces as telemetry

_NUMBERS = iter(range(1, 1 << 31))


@contextmanager
def recording() -> Iterator[InMemorySpanExporter]:
    """What is recorded within: only traces whose beginner says so, as there is no endpoint (see `traceparent`)."""
    telemetry.configure("test", ServiceSettings(auth_mode="development", log_level="WARNING"))
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def traceparent() -> str:
    """A new recorded trace, as a caller would send it."""
    number = next(_NUMBERS)
    return f"00-{number:032x}-{number:016x}-01"


def trace_of(given: str) -> int:
    """The id in a traceparent."""
    return int(given.split("-")[1], 16)


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Finished spans of a name."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


def trace_id(span: ReadableSpan) -> int:
    """Which trace it belongs to."""
    assert span.context is not None
    return span.context.trace_id
