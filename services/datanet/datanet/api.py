"""The gRPC door: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceServicer
from sqlalchemy import Engine

from datanet import convert, names
from datanet.download import chunks
from datanet.entities import RecordState
from datanet.gate import GateItemsCache
from datanet.intake import Intake
from datanet.registry import Registry
from datanet.review import Review
from datanet.sealing import Sealing
from datanet.stream import contribute
from identity.names import ContributorName, DatanetName, RecordName, SnapshotName
from servicekit.auth import current_principal
from servicekit.objects import ObjectStore
from servicekit.request_ids import RequestId
from servicekit.server import check_cancelled

Context = grpc.aio.ServicerContext[Any, Any]


class DatanetApi(DatanetServiceServicer):
    """DatanetService over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore, batch_records: int) -> None:
        gate_items = GateItemsCache(objects)
        self._registry = Registry(engine, gate_items)
        self._intake = Intake(engine, gate_items)
        self._review = Review(engine)
        self._sealing = Sealing(engine, objects)
        self._batch_records = batch_records

    async def CreateDatanet(self, request: pb.CreateDatanetRequest, context: Context) -> pb.Datanet:
        """See the proto."""
        name = names.parse("datanet_id", DatanetName, f"datanets/{request.datanet_id}")
        asked = convert.to_datanet(str(name), request.datanet)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        made = await asyncio.to_thread(self._registry.create, principal, asked, once)
        return convert.datanet(made)

    async def GetDatanet(self, request: pb.GetDatanetRequest, context: Context) -> pb.Datanet:
        """See the proto."""
        name = names.parse("name", DatanetName, request.name)
        return convert.datanet(await asyncio.to_thread(self._registry.get, name))

    async def ListDatanets(
        self, request: pb.ListDatanetsRequest, context: Context
    ) -> pb.ListDatanetsResponse:
        """See the proto."""
        page, token = await asyncio.to_thread(self._registry.list, request.page_size, request.page_token)
        return pb.ListDatanetsResponse(datanets=map(convert.datanet, page), next_page_token=token)

    async def RegisterContributor(
        self, request: pb.RegisterContributorRequest, context: Context
    ) -> pb.Contributor:
        """See the proto."""
        text = f"{request.parent}/contributors/{request.contributor_id}"
        name = names.parse("contributor_id", ContributorName, text)
        asked = convert.to_contributor(str(name), request.contributor)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        made = await asyncio.to_thread(self._registry.register, principal, asked, once)
        return convert.contributor(made)

    async def ListContributors(
        self, request: pb.ListContributorsRequest, context: Context
    ) -> pb.ListContributorsResponse:
        """See the proto."""
        parent = names.parse("parent", DatanetName, request.parent)
        page, token = await asyncio.to_thread(
            self._registry.contributors, current_principal(), parent, request.page_size, request.page_token
        )
        return pb.ListContributorsResponse(contributors=map(convert.contributor, page), next_page_token=token)

    async def Contribute(
        self, request_iterator: AsyncIterator[pb.ContributeRequest], context: Context
    ) -> AsyncIterator[pb.ContributeResponse]:
        """See the proto."""
        responses = contribute(self._intake, current_principal(), request_iterator, self._batch_records)
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def ReviewRecord(self, request: pb.ReviewRecordRequest, context: Context) -> pb.Record:
        """See the proto."""
        name = names.parse("name", RecordName, request.name)
        accept = request.decision == pb.RECORD_STATE_ACCEPTED
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        record = await asyncio.to_thread(self._review.decide, principal, name, accept, request.reason, once)
        return convert.record(record)

    async def WithdrawRecord(self, request: pb.WithdrawRecordRequest, context: Context) -> pb.Record:
        """See the proto."""
        name = names.parse("name", RecordName, request.name)
        record = await asyncio.to_thread(self._review.withdraw, current_principal(), name, request.reason)
        return convert.record(record)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        """See the proto."""
        parent = names.parse("parent", DatanetName, request.parent)
        contributor = convert.to_filter(parent, request.contributor)
        state = RecordState(request.state) if request.state else None
        page, token = await asyncio.to_thread(
            self._review.list,
            current_principal(),
            parent,
            state,
            contributor,
            request.page_size,
            request.page_token,
        )
        return pb.ListRecordsResponse(records=map(convert.record, page), next_page_token=token)

    async def SealSnapshot(self, request: pb.SealSnapshotRequest, context: Context) -> pb.Snapshot:
        """See the proto."""
        parent = names.parse("parent", DatanetName, request.parent)
        rule = convert.to_split_rule(parent, request)
        principal = current_principal()
        once = RequestId.of(principal.name, request)
        snapshot = await asyncio.to_thread(self._sealing.seal, principal, parent, rule, once, check_cancelled)
        return convert.snapshot(snapshot)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.Snapshot:
        """See the proto."""
        name = names.parse("name", SnapshotName, request.name)
        return convert.snapshot(await asyncio.to_thread(self._sealing.get, name))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        """See the proto."""
        parent = names.parse("parent", DatanetName, request.parent)
        page, token = await asyncio.to_thread(
            self._sealing.list, parent, request.page_size, request.page_token
        )
        return pb.ListSnapshotsResponse(snapshots=map(convert.snapshot, page), next_page_token=token)

    async def DownloadSnapshot(
        self, request: pb.DownloadSnapshotRequest, context: Context
    ) -> AsyncIterator[ObjectChunk]:
        """See the proto."""
        name = names.parse("name", SnapshotName, request.name)
        manifest = request.part == pb.SNAPSHOT_PART_MANIFEST
        digest, file = await asyncio.to_thread(self._sealing.open, current_principal(), name, manifest)
        async for chunk in chunks(digest, file):
            yield chunk
