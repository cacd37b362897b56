"""Metrics: how they are declared, and those every service has.

A service declares its own in its ``metrics.py`` by these helpers, at import, once. Names start with ``openledger_`` and
end with their unit; labels have few values (never an id, a name, or anything a caller chooses).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics

# A second series for each counter and histogram, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_PREFIX = "openledger_"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets from a cache hit to a long computation."""


def counter(name: str, description: str, labels: Sequence[str] = ()) -> Counter:
    """Something that only grows; the name ends with ``_total``."""
    if not name.endswith("_total"):
        raise ValueError(f"a counter's name ends with _total, {name!r} does not")
    return Counter(_checked(name), description, labels, registry=REGISTRY)


def gauge(name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
    """Something that goes up and down."""
    return Gauge(_checked(name), description, labels, registry=REGISTRY)


def histogram(
    name: str, description: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
) -> Histogram:
    """How something is distributed; the name ends with its unit."""
    return Histogram(_checked(name), description, labels, registry=REGISTRY, buckets=buckets)


def _checked(name: str) -> str:
    if not name.startswith(_PREFIX):
        raise ValueError(f"a metric's name starts with {_PREFIX}, {name!r} does not")
    return name


RPCS = counter("openledger_rpcs_total", "RPCs that ended, by outcome.", ("method", "code"))
"""Rate and errors: `code` is the gRPC status."""

RPC_SECONDS = histogram(
    "openledger_rpc_duration_seconds", "Time from an RPC's begin to its end.", ("method",)
)
"""Duration; of a stream, its whole life."""

RPCS_RUNNING = gauge("openledger_rpcs_running", "RPCs that run now.", ("method",))
"""What a drain waits for."""

REFERENCES_PUBLISHED = gauge(
    "openledger_object_references_published_timestamp_seconds",
    "When the service last said which objects it needs, Unix time; 0: not yet. No garbage is collected that was put later.",
    ("service",),
)
"""Of services that refer to objects."""

Resource = Literal[
    "handler_threads",
    "database_connections",
    "write_ahead_log",
    "batch_rows",
    "question_queue",
    "adapter_slots",
]
"""What a service has only so much of."""

_SATURATION = gauge(
    "openledger_saturation_ratio",
    "Part of a bounded resource that is in use: at 1 it is full, above 1 work waits for it.",
    ("resource",),
)
"""Of handler_threads (work of RPC handlers), database_connections, write_ahead_log (unsent bytes), batch_rows (answers computed
at once), question_queue, adapter_slots."""


def saturation(resource: Resource, used: Callable[[], float], limit: float) -> None:
    """Reports how full a resource is, from now on, whenever it is asked; `used` must be quick and never raise."""
    _SATURATION.labels(resource).set_function(lambda: used() / limit)
