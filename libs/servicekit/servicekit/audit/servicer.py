"""AuditService, which is the same for every service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
from openledger.audit.v1.audit_pb2 import FactsPage, ReadFactsRequest, ReadObjectRequest
from openledger.audit.v1.audit_pb2_grpc import AuditServiceServicer
from openledger.common.v1.object_pb2 import ObjectChunk
from sqlalchemy import Engine

from servicekit.audit.declared import Declared
from servicekit.audit.pages import PAGE_BYTES, Pages, pages
from servicekit.errors import ResourceExhausted
from servicekit.objects import ObjectStore

LONGEST_S = 900.0
"""Longest time that a stream may keep its snapshot open. The database keeps all row versions since the snapshot meanwhile."""
AT_ONCE = 2
"""Largest number of concurrent streams of facts. Each uses one connection of the pool."""

Context = grpc.aio.ServicerContext[Any, Any]


class AuditServicer(AuditServiceServicer):
    """Serves the facts that one service has declared."""

    def __init__(
        self, declared: Declared, engine: Engine, objects: ObjectStore, longest_s: float = LONGEST_S
    ) -> None:
        self._declared = declared
        self._engine = engine
        self._objects = objects
        self._longest_s = longest_s
        self._running = 0

    async def ReadFacts(self, request: ReadFactsRequest, context: Context) -> AsyncIterator[FactsPage]:
        """See the proto."""
        if self._running >= AT_ONCE:
            raise ResourceExhausted(
                "AUDITS_AT_ONCE", f"{AT_ONCE} streams of facts run already", retry_after_s=5.0
            )
        self._running += 1
        made = Pages(pages(self._engine, self._declared))
        limit = asyncio.create_task(self._expire(made))
        try:
            while (page := await asyncio.to_thread(made.next)) is not None:
                yield page
        finally:
            self._running -= 1
            limit.cancel()
            # Shielded, so that a cancelled call releases its snapshot as well.
            await asyncio.shield(asyncio.to_thread(made.close))

    async def ReadObject(self, request: ReadObjectRequest, context: Context) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        with await asyncio.to_thread(self._objects.open, request.digest) as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while offset < size or offset == 0:
                data = await asyncio.to_thread(file.read, PAGE_BYTES)
                yield ObjectChunk(digest=request.digest, size=size, offset=offset, data=data)
                if not data:
                    return
                offset += len(data)

    async def _expire(self, made: Pages) -> None:
        await asyncio.sleep(self._longest_s)
        await asyncio.to_thread(made.expire)
