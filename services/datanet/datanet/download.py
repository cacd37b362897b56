"""Reads a stored object in pieces, for a streamed answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK_BYTES = 256 << 10
"""Far below gRPC's limit of a message, and large enough that the overhead of a message does not matter."""


@dataclass(frozen=True)
class Chunk:
    """A piece of an object."""

    size: int
    """Of the whole object, in bytes."""
    offset: int
    data: bytes


async def chunks(file: BinaryIO) -> AsyncIterator[Chunk]:
    """Yields the pieces of a file in order, at least one even if it is empty. Closes the file."""
    with file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size or offset == 0:
            data = await asyncio.to_thread(file.read, CHUNK_BYTES)
            yield Chunk(size, offset, data)
            if not data:
                return
            offset += len(data)
