"""The Contribute stream: records in, one result for each in order, in batches whose size follows the load.

A batch is whatever arrived while the previous batch was written. A client that waits for each result gets batches of
one and the shortest delay; a client that streams gets full batches and the highest throughput. There is no timer.

A batch is judged in threads of its own kind, so that streams of slow records take no thread from reads, and stored by a few
streams at a time. A cancelled stream stops at its next record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from datanet import metrics
from datanet.decision import Result
from datanet.entities import Submission
from datanet.intake import ContributionWriter, Intake
from identity.names import ContributorName
from servicekit.auth import Principal
from servicekit.errors import InvalidArgument
from servicekit.names import parse
from servicekit.server import HeavyWork, check_cancelled

MAX_WAITING_BYTES = 4 << 20
"""Records of one stream that wait to be written. gRPC's flow control slows a faster client down."""

_STORING = 4
"""Batches that are stored at once; the rest wait without a thread. One Datanet's batches take turns anyhow."""

_END = None
Item = Submission | BaseException | None


class BatchWriting:
    """Where the streams of a service judge and store."""

    def __init__(self, batch_records: int) -> None:
        self.batch_records = batch_records
        self._judging = HeavyWork("judging")
        self._storing = asyncio.Semaphore(_STORING)

    async def write(self, writer: ContributionWriter, batch: Sequence[bytes]) -> list[Result]:
        """Returns and raises as `ContributionWriter.write`. A batch that is being stored is completed, even if cancelled."""
        judged = await self._judging.run(writer.judge, batch, check_cancelled)
        async with self._storing:
            return await asyncio.to_thread(writer.store, judged)


class Submissions:
    """A queue with a bound in records and in bytes."""

    def __init__(self, records: int, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._items: deque[Item] = deque()
        self._records = records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, item: Item) -> None:
        """Waits until it fits. One record fits always."""
        size = _size(item)
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(size))
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    async def get_batch(self) -> list[Item]:
        """Waits for an item, and returns all that have arrived, at most half of the queue's bound."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._items))
            batch: list[Item] = []
            size = 0
            while self._items and (not batch or self._fits(len(batch), size + _size(self._items[0]))):
                batch.append(self._items.popleft())
                size += _size(batch[-1])
            self._bytes -= size
            self._changed.notify_all()
            return batch

    def _has_room(self, size: int) -> bool:
        return not self._items or (len(self._items) < self._records and self._bytes + size <= self._max_bytes)

    def _fits(self, records: int, size: int) -> bool:
        return records < self._records // 2 and size <= self._max_bytes // 2


def _size(item: Item) -> int:
    return len(item.content) if isinstance(item, Submission) else 0


async def contribute(
    intake: Intake, principal: Principal, submissions: AsyncIterator[Submission], writing: BatchWriting
) -> AsyncGenerator[tuple[int, Result], None]:
    """Yields (sequence, result) for each record of a stream, in order.

    Raises NotFound, InvalidArgument or PermissionDenied for a contributor that does not exist, is not named, or is not
    the principal. When the caller closes the generator, the reading task ends, and a batch that is being stored in a
    thread is completed.
    """
    queue = Submissions(2 * writing.batch_records)  # one batch is written while the next one gathers
    reader = asyncio.create_task(_read(submissions, queue))
    writer: ContributionWriter | None = None
    contributor = ""
    try:
        async with aclosing(_batches(queue)) as batches:
            async for batch in batches:
                for run in _by_contributor(batch, contributor):
                    named = run[0].contributor or contributor
                    if writer is None or named != contributor:
                        writer, contributor = await _open(intake, principal, named), named
                    metrics.BATCH_RECORDS.observe(len(run))
                    results = await writing.write(writer, [each.content for each in run])
                    for submission, result in zip(run, results, strict=True):
                        yield submission.sequence, result
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _open(intake: Intake, principal: Principal, contributor: str) -> ContributionWriter:
    if not contributor:
        raise InvalidArgument("contributor", "required", "the first message must name the contributor")
    name = parse("contributor", ContributorName, contributor)
    return await asyncio.to_thread(intake.open, principal, name)


async def _read(submissions: AsyncIterator[Submission], queue: Submissions) -> None:
    try:
        async for submission in submissions:
            await queue.put(submission)
        await queue.put(_END)
    except Exception as error:  # noqa: BLE001 - raised again by the consumer of the queue
        await queue.put(error)


async def _batches(queue: Submissions) -> AsyncGenerator[list[Submission], None]:
    while True:
        items = await queue.get_batch()
        batch = [item for item in items if isinstance(item, Submission)]
        if batch:
            yield batch
        if not isinstance(items[-1], Submission):  # the end, and nothing comes after it
            if items[-1] is not None:
                raise items[-1]
            return


def _by_contributor(batch: Sequence[Submission], contributor: str) -> list[list[Submission]]:
    """Returns a batch split where the contributor changes; "" means the previous one."""
    runs: list[list[Submission]] = []
    for submission in batch:
        named = submission.contributor or contributor
        if not runs or named != contributor:
            runs.append([])
        runs[-1].append(submission)
        contributor = named
    return runs
