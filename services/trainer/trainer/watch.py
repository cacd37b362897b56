"""Following a job: its progress lines as they are written, its state as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from trainer.progress import ProgressLine, read_progress

T = TypeVar("T")

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Seen(Generic[T]):
    """One thing to tell: a progress line, or a state without one."""

    entity: T
    line: ProgressLine | None
    last: bool


async def follow(folder: Path, read: Callable[[], T], is_over: Callable[[T], bool]) -> AsyncIterator[Seen[T]]:
    """All lines from the beginning, then new ones; a message for each change without a line; the last one
    marked.

    `read` gives the run or evaluation and may raise. Ends with its client: nothing runs on for it.
    """
    offset, told = 0, None
    while True:
        # The entity first: once it is over, nothing is written any more, so the lines read next are all.
        entity = await asyncio.to_thread(read)
        lines, offset = await asyncio.to_thread(read_progress, folder, offset)
        for line in lines:
            yield Seen(entity, line, last=False)
        if is_over(entity):
            yield Seen(entity, None, last=True)
            return
        if not lines and entity != told:
            yield Seen(entity, None, last=False)
        told = entity
        await asyncio.sleep(_LOOK_EVERY_S)
