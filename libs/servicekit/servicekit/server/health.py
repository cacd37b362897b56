"""The standard health service. Its watchers do not delay a drain."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health

# Time to write the last status to watchers. Their streams would otherwise never end, and each drain would use all its grace.
_LAST_WORD_S = 0.1


class Health(health.aio.HealthServicer):  # type: ignore[misc] # the library has no types
    """Like gRPC's class, except that `stop` ends the streams of its watchers."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:
        """Streams each change of a service's status, until the client disconnects or the server stops."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({watching}, timeout=_LAST_WORD_S)
        finally:
            watching.cancel()
            stopping.cancel()

    async def stop(self) -> None:
        """Reports NOT_SERVING permanently."""
        await self.enter_graceful_shutdown()
        self._stopping.set()
