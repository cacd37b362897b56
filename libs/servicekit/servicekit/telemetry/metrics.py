"""Helpers that declare metrics, and the metrics of every service.

A service declares its own metrics in its ``metrics.py`` with these helpers, once, at import. Names start with ``openledger_``
and end with their unit. Labels have few values: never an id, a name, or a value that a caller chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

# Avoids a second, unused series for each counter and histogram.
disable_created_metrics()  # type: ignore[no-untyped-call]

_PREFIX = "openledger_"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets from a cache hit to a long computation."""


def counter(name: str, description: str, labels: Sequence[str] = ()) -> Counter:
    """Declares a metric that only grows; its name ends with ``_total``."""
    if not name.endswith("_total"):
        raise ValueError(f"a counter's name ends with _total, {name!r} does not")
    return Counter(_checked(name), description, labels, registry=REGISTRY)


def gauge(name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
    """Declares a metric that goes up and down."""
    return Gauge(_checked(name), description, labels, registry=REGISTRY)


def histogram(
    name: str, description: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
) -> Histogram:
    """Declares a distribution; its name ends with its unit."""
    return Histogram(_checked(name), description, labels, registry=REGISTRY, buckets=buckets)


def _checked(name: str) -> str:
    if not name.startswith(_PREFIX):
        raise ValueError(f"a metric's name starts with {_PREFIX}, {name!r} does not")
    return name


REQUESTS = counter(
    "openledger_requests_total", "RPCs and HTTP requests that ended, by outcome.", ("method", "code")
)
"""Rate and errors: `code` is the gRPC status."""

REQUEST_SECONDS = histogram(
    "openledger_request_duration_seconds",
    "Time from the start of an RPC or HTTP request to its end.",
    ("method",),
)
"""Duration; for a stream, from its start to its end."""

REQUESTS_RUNNING = gauge("openledger_requests_running", "RPCs and HTTP requests that run now.", ("method",))
"""A drain waits for these."""

REFERENCES_PUBLISHED = gauge(
    "openledger_object_references_published_timestamp_seconds",
    "When the service last published which objects it needs, Unix time; 0: not yet. Later objects are not collected.",
    ("service",),
)
"""Of services that refer to objects."""

Resource = Literal[
    "handler_threads",
    "judging",
    "sealing",
    "database_connections",
    "write_ahead_log",
    "batch_sequences",
    "request_queue",
    "adapter_slots",
    "request_memory",
    "response_memory",
]
"""A bounded resource of a service."""

_SATURATION = gauge(
    "openledger_saturation_ratio",
    "Fraction of a bounded resource that is in use: at 1 it is full, above 1 work waits for it.",
    ("resource",),
)
"""Of handler_threads (work of RPC handlers), judging and sealing (long computations of datanet), database_connections,
write_ahead_log (unsent bytes), batch_sequences (answers computed at once), request_queue, adapter_slots,
request_memory (bytes of requests that arrive or are handled), response_memory (bytes of responses that are not sent yet)."""

REQUESTS_WITHOUT_MEMORY = counter(
    "openledger_requests_without_memory_total",
    "Calls refused to bound the memory of requests and responses, by reason: full, incomplete, stream, response.",
    ("reason",),
)
"""Counted by `servicekit.server.request_memory`."""


def saturation(resource: Resource, used: Callable[[], float], limit: float) -> None:
    """Reports the use of a resource at each scrape; `used` must be fast and must not raise."""
    _SATURATION.labels(resource).set_function(lambda: used() / limit)
