"""Sends spans to a collector by OTLP, and never makes a process wait for one that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from servicekit.deadlines import EXPORT_S
from servicekit.heartbeats import Heartbeat


class CollectorExporter(SpanExporter):
    """Exports within a deadline, retries included, and reports whether the collector answers."""

    def __init__(self, endpoint: str, timeout_s: float = EXPORT_S) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._closed = False
        self._exporter = self._open()
        self._heartbeat = Heartbeat("trace collector")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter. Spans that are not sent in time are lost."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._heartbeat.succeeded()
        else:
            self._heartbeat.failed(f"{self._endpoint} does not take spans")
            # The SDK keeps a connection that does not answer, and would never find that the collector is back.
            self._exporter.shutdown()
            if not self._closed:
                self._exporter = self._open()
        return result

    def shutdown(self) -> None:
        """Cancels a running export and closes the connection."""
        self._closed = True
        self._exporter.shutdown()
        self._heartbeat.close()

    def _open(self) -> OTLPSpanExporter:
        plain = self._endpoint.startswith("http://")
        return OTLPSpanExporter(self._endpoint, insecure=plain, timeout=self._timeout_s)


class Export:
    """The queue of spans of a process, and the thread that sends them."""

    def __init__(self, endpoint: str, timeout_s: float = EXPORT_S) -> None:
        self._exporter = CollectorExporter(endpoint, timeout_s)
        self.processor = BatchSpanProcessor(self._exporter)
        self._given_up = False

    def flush(self, within_s: float) -> bool:
        """Sends what waits, for at most this time. Returns whether everything was handed to the collector.

        The SDK's own flush ignores its time limit, so it runs in a thread that is left behind; it ends with its export.
        """
        done = threading.Event()

        def send() -> None:
            self.processor.force_flush()
            done.set()

        threading.Thread(target=send, name="flush of spans", daemon=True).start()
        self._given_up = not done.wait(within_s)
        return not self._given_up

    def close(self, within_s: float) -> bool:
        """Flushes, unless that has just failed, and ends the connection, which cancels an export that still runs."""
        flushed = not self._given_up and self.flush(within_s)
        self._exporter.shutdown()
        return flushed
