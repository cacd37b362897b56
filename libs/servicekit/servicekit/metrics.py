"""Metrics: how they are declared, and those every service has.

A service declares its own in its ``metrics.py`` by these helpers, at import, once. Names start with ``openledger_`` and
end with their unit; labels have few values (never an id, a name, or anything a caller chooses).
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

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
