"""The Contribute stream: requests in, one response each in order, in batches that form by themselves.

A batch is whatever arrived while the batch before it was written: a client that waits for each answer has batches of
one and the least delay; a client that streams has full ones and the most throughput. No timer decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from openledger.datanet.v1 import datanet_pb2 as pb

from datanet import convert, metrics, names
from datanet.definition import MAX_RECORD_BYTES
from datanet.intake import Inlet, Intake
from identity.names import ContributorName
from servicekit.auth import Principal
from servicekit.errors import InvalidArgument

_END = None
Requests = asyncio.Queue[pb.ContributeRequest | BaseException | None]


async def contribute(
    intake: Intake, principal: Principal, requests: AsyncIterator[pb.ContributeRequest], batch_records: int
) -> AsyncGenerator[pb.ContributeResponse, None]:
    """The responses to a stream of records.

    Ends early, with the error as it is raised, for a contributor that is unknown, not named, or not the principal.
    Whoever stops listening leaves nothing behind: the reader ends here, and a batch in a thread ends by itself.
    """
    # Twice a batch: one that is written, one that gathers. A client that is faster waits, by gRPC's flow control.
    queue: Requests = asyncio.Queue(2 * batch_records)
    reader = asyncio.create_task(_read(requests, queue))
    inlet: Inlet | None = None
    contributor = ""
    try:
        async with aclosing(_batches(queue, batch_records)) as batches:
            async for batch in batches:
                for run in _by_contributor(batch, contributor):
                    named = run[0].contributor or contributor
                    if inlet is None or named != contributor:
                        inlet, contributor = await _open(intake, principal, named), named
                    metrics.BATCH_RECORDS.observe(len(run))
                    results = await asyncio.to_thread(inlet.take, [each.content for each in run])
                    for request, result in zip(run, results, strict=True):
                        yield convert.result(request.sequence, result)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _open(intake: Intake, principal: Principal, contributor: str) -> Inlet:
    if not contributor:
        raise InvalidArgument("contributor", "required", "the first message must name the contributor")
    name = names.parse("contributor", ContributorName, contributor)
    return await asyncio.to_thread(intake.open, principal, name)


async def _read(requests: AsyncIterator[pb.ContributeRequest], queue: Requests) -> None:
    try:
        async for request in requests:
            if len(request.content) > MAX_RECORD_BYTES:
                # Its rule refuses it all the same: what waits in the queue must not be 16 times what it may be.
                request.content = request.content[: MAX_RECORD_BYTES + 1]
            await queue.put(request)
        await queue.put(_END)
    except Exception as error:  # raised again by whoever takes it out, after the records before it
        await queue.put(error)


async def _batches(queue: Requests, limit: int) -> AsyncGenerator[list[pb.ContributeRequest], None]:
    ending: BaseException | None = None
    ended = False
    while not ended:
        batch: list[pb.ContributeRequest] = []
        item = await queue.get()
        while True:
            if isinstance(item, pb.ContributeRequest):
                batch.append(item)
            else:
                ending, ended = item, True
            if ended or len(batch) == limit or queue.empty():
                break
            item = queue.get_nowait()
        if batch:
            yield batch
    if ending is not None:
        raise ending


def _by_contributor(
    batch: Sequence[pb.ContributeRequest], contributor: str
) -> list[list[pb.ContributeRequest]]:
    """A batch cut where the contributor changes; "" means the one before."""
    runs: list[list[pb.ContributeRequest]] = []
    for request in batch:
        named = request.contributor or contributor
        if not runs or named != contributor:
            runs.append([])
        runs[-1].append(request)
        contributor = named
    return runs
