"""Rate, errors and duration of each RPC and each HTTP route."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import grpc
from prometheus_client import Counter, Gauge, Histogram

from servicekit.server.call import Call
from servicekit.telemetry.metrics import REQUEST_SECONDS, REQUESTS, REQUESTS_RUNNING


@asynccontextmanager
async def metrics(call: Call) -> AsyncIterator[None]:
    """Counts and times the call. Unknown methods are refused earlier, so a caller cannot create new label values."""
    begun = time.perf_counter()
    running, seconds = _of(call.method)
    running.inc()
    try:
        yield
    finally:
        running.dec()
        seconds.observe(time.perf_counter() - begun)
        _ended(call.method, call.code).inc()


@cache
def _of(method: str) -> tuple[Gauge, Histogram]:
    """Returns the metrics of a method, cached: looking one up costs as much as incrementing it, and there are few methods."""
    return REQUESTS_RUNNING.labels(method), REQUEST_SECONDS.labels(method)


@cache
def _ended(method: str, code: grpc.StatusCode) -> Counter:
    return REQUESTS.labels(method, code.name)
