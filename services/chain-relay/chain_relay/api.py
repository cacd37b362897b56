"""The gRPC servicer: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1 import settlement_pb2_grpc

from chain_relay import convert
from chain_relay.settlement import Settlement
from identity.names import BatchName
from servicekit import names
from servicekit.auth import current_principal
from servicekit.database.request_ids import RequestId
from servicekit.database.watches import Changes
from servicekit.lists import Query

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class SettlementApi(settlement_pb2_grpc.SettlementServiceServicer):
    """openledger.settlement.v1.SettlementService."""

    def __init__(self, settlement: Settlement, changes: Changes) -> None:
        """`changes`: those of batches, by name."""
        self._settlement = settlement
        self._changes = changes

    async def GetSettlementInfo(
        self, request: pb.GetSettlementInfoRequest, context: Context
    ) -> pb.SettlementInfo:
        return convert.info_message(await asyncio.to_thread(self._settlement.info))

    async def FlushBatch(self, request: pb.FlushBatchRequest, context: Context) -> pb.FlushBatchResponse:
        request_id = RequestId.of(current_principal().name, request)
        record = await asyncio.to_thread(self._settlement.flush, request_id)
        return pb.FlushBatchResponse(batch=None if record is None else convert.record_message(record))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.Batch:
        return convert.record_message(await asyncio.to_thread(self._settlement.batch, request.name))

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        page = await asyncio.to_thread(self._settlement.batches, Query.of(request))
        return pb.ListBatchesResponse(
            batches=[convert.record_message(record) for record in page.items],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Context) -> AsyncIterator[pb.Batch]:
        seen = 0
        name = str(names.parse("name", BatchName, request.name))
        async for _ in self._changes.watch(name):
            batch = convert.record_message(await asyncio.to_thread(self._settlement.batch, request.name))
            # The history grows with every change, also when a reorg moves the batch back.
            if len(batch.history) > seen:
                seen = len(batch.history)
                yield batch
            if batch.state == pb.BATCH_STATE_FINAL:
                return

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.InclusionProof:
        return convert.inclusion_message(
            await asyncio.to_thread(self._settlement.inclusion, request.inference)
        )

    async def GetSettlement(self, request: pb.GetSettlementRequest, context: Context) -> pb.Settlement:
        return convert.settlement_message(
            await asyncio.to_thread(self._settlement.settlement, request.inference)
        )

    async def ListBalances(
        self, request: pb.ListBalancesRequest, context: Context
    ) -> pb.ListBalancesResponse:
        page, sums = await asyncio.to_thread(self._settlement.balances, Query.of(request))
        return convert.balances_message(page, sums)

    async def ProposeRewardRoot(
        self, request: pb.ProposeRewardRootRequest, context: Context
    ) -> pb.RewardRoot:
        request_id = RequestId.of(current_principal().name, request)
        return convert.reward_root_message(await asyncio.to_thread(self._settlement.propose, request_id))

    async def GetRewardRoot(self, request: pb.GetRewardRootRequest, context: Context) -> pb.RewardRoot:
        return convert.reward_root_message(
            await asyncio.to_thread(self._settlement.reward_root, request.name)
        )

    async def ListRewardRoots(
        self, request: pb.ListRewardRootsRequest, context: Context
    ) -> pb.ListRewardRootsResponse:
        page = await asyncio.to_thread(self._settlement.reward_roots, Query.of(request))
        return pb.ListRewardRootsResponse(
            reward_roots=[convert.reward_root_message(record) for record in page.items],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def GetRewardProof(self, request: pb.GetRewardProofRequest, context: Context) -> pb.RewardProof:
        return convert.claim_message(await asyncio.to_thread(self._settlement.claim, request.address))
