"""Follows a job: its progress lines as they are written, its state as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from servicekit.database.watches import Changes
from trainer.contract.progress import ProgressLine, read_progress

T = TypeVar("T")

_READ_PROGRESS_EVERY_S = 0.25


@dataclass(frozen=True)
class Update(Generic[T]):
    """One message of a watch: a progress line, or a state without one."""

    entity: T
    line: ProgressLine | None
    last: bool


async def follow(
    folder: Path, changes: Changes, read: Callable[[], T], is_over: Callable[[T], bool]
) -> AsyncIterator[Update[T]]:
    """Yields all progress lines from the beginning, then new ones, and each change without a line; marks the last update.

    `folder` is the job's, named by its id, which is its key in `changes` as well. `read` returns the run or evaluation
    and may raise; it is called after a change only. Nothing continues after the client has left.
    """
    changed = asyncio.Event()
    watching = asyncio.create_task(_note(changes, folder.name, changed))
    try:
        await changed.wait()  # watched from here on: no change after the first read is missed
        offset, entity, sent = 0, None, None
        while True:
            if entity is None or changed.is_set():
                changed.clear()
                entity = await asyncio.to_thread(read)
            # After the entity: once that is over, nothing is written any more, so these lines are all.
            lines, offset = await asyncio.to_thread(read_progress, folder, offset)
            for line in lines:
                yield Update(entity, line, last=False)
            if is_over(entity):
                yield Update(entity, None, last=True)
                return
            if not lines and entity != sent:
                yield Update(entity, None, last=False)
            sent = entity
            await _wait(changed)
    finally:
        watching.cancel()


async def _note(changes: Changes, key: str, changed: asyncio.Event) -> None:
    async for _ in changes.watch(key):
        changed.set()


async def _wait(changed: asyncio.Event) -> None:
    """Returns after a change, or when the progress file should be read again."""
    try:
        await asyncio.wait_for(changed.wait(), _READ_PROGRESS_EVERY_S)
    except TimeoutError:
        return
