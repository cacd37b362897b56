"""An object on its way to a client, in pieces."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

from openledger.common.v1.object_pb2 import ObjectChunk

CHUNK_BYTES = 256 << 10
"""Far below gRPC's limit of a message, and large enough that its cost does not count."""


async def chunks(digest: str, file: BinaryIO) -> AsyncIterator[ObjectChunk]:
    """The pieces of a file in order; at least one, so that an empty object has its digest. Closes the file."""
    with file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size or offset == 0:
            data = await asyncio.to_thread(file.read, CHUNK_BYTES)
            yield ObjectChunk(digest=digest, size=size, offset=offset, data=data)
            if not data:
                return
            offset += len(data)
