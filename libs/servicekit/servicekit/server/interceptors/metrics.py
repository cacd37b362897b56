"""Rate, errors and duration of each RPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.metrics import RPC_SECONDS, RPCS, RPCS_RUNNING
from servicekit.server.call import Call


@asynccontextmanager
async def metrics(call: Call) -> AsyncIterator[None]:
    """Methods that do not exist are not counted, so a caller cannot invent label values."""
    begun = time.perf_counter()
    running = RPCS_RUNNING.labels(call.method)
    running.inc()
    try:
        yield
    finally:
        running.dec()
        RPC_SECONDS.labels(call.method).observe(time.perf_counter() - begun)
        RPCS.labels(call.method, call.code.name).inc()
