"""The gRPC API: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceServicer

from datanet import convert
from datanet.download import chunks
from datanet.entities import RecordState
from datanet.intake import Intake
from datanet.registry import Registry
from datanet.review import Review
from datanet.seal_operations import SealOperations
from datanet.sealing import Sealing
from datanet.stream import BatchWriting, contribute
from identity.names import ContributorName, DatanetName, RecordName, SealOperationName, SnapshotName
from servicekit.auth import current_principal
from servicekit.database.request_ids import RequestId
from servicekit.database.watches import Changes
from servicekit.lists import Query
from servicekit.names import parse

Context = grpc.aio.ServicerContext[Any, Any]


class DatanetApi(DatanetServiceServicer):
    """DatanetService."""

    def __init__(
        self,
        *,
        registry: Registry,
        intake: Intake,
        review: Review,
        sealing: Sealing,
        operations: SealOperations,
        changes: Changes,
        writing: BatchWriting,
    ) -> None:
        self._registry = registry
        self._intake = intake
        self._review = review
        self._sealing = sealing
        self._operations = operations
        self._changes = changes
        self._writing = writing

    async def CreateDatanet(self, request: pb.CreateDatanetRequest, context: Context) -> pb.Datanet:
        """See the proto."""
        name = parse("datanet_id", DatanetName, f"datanets/{request.datanet_id}")
        described = convert.to_datanet(str(name), request.datanet)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        made = await asyncio.to_thread(self._registry.create, principal, described, once)
        return convert.datanet(made)

    async def GetDatanet(self, request: pb.GetDatanetRequest, context: Context) -> pb.Datanet:
        """See the proto."""
        name = parse("name", DatanetName, request.name)
        return convert.datanet(await asyncio.to_thread(self._registry.get, name))

    async def ListDatanets(
        self, request: pb.ListDatanetsRequest, context: Context
    ) -> pb.ListDatanetsResponse:
        """See the proto."""
        full = convert.is_full(request.view)
        page = await asyncio.to_thread(self._registry.list, Query.of(request))
        return pb.ListDatanetsResponse(
            datanets=[convert.datanet(each, full=full) for each in page.items],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def RegisterContributor(
        self, request: pb.RegisterContributorRequest, context: Context
    ) -> pb.Contributor:
        """See the proto."""
        text = f"{request.parent}/contributors/{request.contributor_id}"
        name = parse("contributor_id", ContributorName, text)
        described = convert.to_contributor(str(name), request.contributor)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        made = await asyncio.to_thread(self._registry.register, principal, described, once)
        return convert.contributor(made)

    async def ListContributors(
        self, request: pb.ListContributorsRequest, context: Context
    ) -> pb.ListContributorsResponse:
        """See the proto."""
        parent = parse("parent", DatanetName, request.parent)
        page = await asyncio.to_thread(
            self._registry.contributors, current_principal(), parent, Query.of(request)
        )
        return pb.ListContributorsResponse(
            contributors=map(convert.contributor, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def Contribute(
        self, request_iterator: AsyncIterator[pb.ContributeRequest], context: Context
    ) -> AsyncIterator[pb.ContributeResponse]:
        """See the proto."""
        submissions = (convert.to_submission(request) async for request in request_iterator)
        results = contribute(self._intake, current_principal(), submissions, self._writing)
        async with aclosing(results):
            async for sequence, result in results:
                yield convert.result(sequence, result)

    async def ReviewRecord(self, request: pb.ReviewRecordRequest, context: Context) -> pb.Record:
        """See the proto."""
        name = parse("name", RecordName, request.name)
        accept = request.decision == pb.RECORD_STATE_ACCEPTED
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        record = await asyncio.to_thread(
            self._review.decide,
            principal,
            name,
            accept=accept,
            reason=request.reason,
            of_contributor=convert.is_about_contributor(request.subject),
            request=once,
        )
        return convert.record(record)

    async def WithdrawRecord(self, request: pb.WithdrawRecordRequest, context: Context) -> pb.Record:
        """See the proto."""
        name = parse("name", RecordName, request.name)
        record = await asyncio.to_thread(
            self._review.withdraw,
            current_principal(),
            name,
            request.reason,
            of_contributor=convert.is_about_contributor(request.subject),
        )
        return convert.record(record)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        """See the proto."""
        parent = parse("parent", DatanetName, request.parent)
        contributor = convert.to_contributor_filter(parent, request.contributor)
        page = await asyncio.to_thread(
            self._review.list,
            current_principal(),
            parent,
            Query.of(request),
            state=RecordState(request.state) if request.state else None,
            contributor=contributor,
            with_content=convert.is_full(request.view),
        )
        return pb.ListRecordsResponse(
            records=map(convert.record, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def SealSnapshot(self, request: pb.SealSnapshotRequest, context: Context) -> pb.SealOperation:
        """See the proto."""
        parent = parse("parent", DatanetName, request.parent)
        rule = convert.to_split_rule(parent, request)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        started = await asyncio.to_thread(self._operations.start, principal, parent, rule, once)
        return convert.seal_operation(started)

    async def GetSealOperation(
        self, request: pb.GetSealOperationRequest, context: Context
    ) -> pb.SealOperation:
        """See the proto."""
        name = parse("name", SealOperationName, request.name)
        found = await asyncio.to_thread(self._operations.get, current_principal(), name)
        return convert.seal_operation(found)

    async def ListSealOperations(
        self, request: pb.ListSealOperationsRequest, context: Context
    ) -> pb.ListSealOperationsResponse:
        """See the proto."""
        parent = parse("parent", DatanetName, request.parent)
        page = await asyncio.to_thread(self._operations.list, current_principal(), parent, Query.of(request))
        return pb.ListSealOperationsResponse(
            seal_operations=map(convert.seal_operation, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def WatchSealOperation(
        self, request: pb.WatchSealOperationRequest, context: Context
    ) -> AsyncIterator[pb.SealOperation]:
        """See the proto."""
        name, principal, last = parse("name", SealOperationName, request.name), current_principal(), None
        async for _ in self._changes.watch(str(name)):
            found = await asyncio.to_thread(self._operations.get, principal, name)
            message = convert.seal_operation(found)
            if message != last:
                yield message
            last = message
            if found.state.final:
                return

    async def CancelSealOperation(
        self, request: pb.CancelSealOperationRequest, context: Context
    ) -> pb.SealOperation:
        """See the proto."""
        name = parse("name", SealOperationName, request.name)
        cancelled = await asyncio.to_thread(self._operations.cancel, current_principal(), name)
        return convert.seal_operation(cancelled)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.Snapshot:
        """See the proto."""
        name = parse("name", SnapshotName, request.name)
        return convert.snapshot(await asyncio.to_thread(self._sealing.get, name))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        """See the proto."""
        parent = parse("parent", DatanetName, request.parent)
        full = convert.is_full(request.view)
        page = await asyncio.to_thread(self._sealing.list, parent, Query.of(request))
        return pb.ListSnapshotsResponse(
            snapshots=[convert.snapshot(each, full=full) for each in page.items],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def DownloadSnapshot(
        self, request: pb.DownloadSnapshotRequest, context: Context
    ) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        name = parse("name", SnapshotName, request.name)
        manifest = request.part == pb.SNAPSHOT_PART_MANIFEST
        digest, file = await asyncio.to_thread(self._sealing.open, current_principal(), name, manifest)
        async for chunk in chunks(file):
            yield convert.chunk(digest, chunk)
