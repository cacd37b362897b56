"""Rate, errors and duration of each RPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import grpc
from prometheus_client import Counter, Gauge, Histogram

from servicekit.metrics import RPC_SECONDS, RPCS, RPCS_RUNNING
from servicekit.server.call import Call


@asynccontextmanager
async def metrics(call: Call) -> AsyncIterator[None]:
    """Methods that do not exist are not counted, so a caller cannot invent label values."""
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
    """Finding a labelled metric costs as much as counting with it; methods are few."""
    return RPCS_RUNNING.labels(method), RPC_SECONDS.labels(method)


@cache
def _ended(method: str, code: grpc.StatusCode) -> Counter:
    return RPCS.labels(method, code.name)
