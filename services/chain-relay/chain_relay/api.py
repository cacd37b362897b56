"""The gRPC servicer: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1 import settlement_pb2_grpc

from chain_relay.settlement import Settlement
from servicekit.auth import current_principal
from servicekit.errors import InvalidArgument
from servicekit.request_ids import RequestId

_PAGE = 100
_WATCH_INTERVAL_S = 0.2

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class SettlementApi(settlement_pb2_grpc.SettlementServiceServicer):
    """openledger.settlement.v1.SettlementService."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement

    async def GetSettlementInfo(
        self, request: pb.GetSettlementInfoRequest, context: Context
    ) -> pb.SettlementInfo:
        return await asyncio.to_thread(self._settlement.info)

    async def FlushBatch(self, request: pb.FlushBatchRequest, context: Context) -> pb.FlushBatchResponse:
        return await asyncio.to_thread(
            self._settlement.flush, RequestId.of(current_principal().name, request)
        )

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.Batch:
        return await asyncio.to_thread(self._settlement.batch, request.name)

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        size = request.page_size or _PAGE
        below = _token(request.page_token)
        batches = await asyncio.to_thread(self._settlement.batches, below, size + 1)
        token = str(batches[size - 1].seq) if len(batches) > size else ""
        return pb.ListBatchesResponse(batches=batches[:size], next_page_token=token)

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Context) -> AsyncIterator[pb.Batch]:
        seen = 0
        while True:
            batch = await asyncio.to_thread(self._settlement.batch, request.name)
            # The history grows with every change, a move back included.
            if len(batch.history) > seen:
                seen = len(batch.history)
                yield batch
            if batch.state == pb.BATCH_STATE_FINAL:
                return
            await asyncio.sleep(_WATCH_INTERVAL_S)

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.InclusionProof:
        return await asyncio.to_thread(self._settlement.inclusion, request.inference)

    async def GetSettlement(self, request: pb.GetSettlementRequest, context: Context) -> pb.Settlement:
        return await asyncio.to_thread(self._settlement.settlement, request.inference)

    async def ListBalances(
        self, request: pb.ListBalancesRequest, context: Context
    ) -> pb.ListBalancesResponse:
        size = request.page_size or _PAGE
        skip = _token(request.page_token) or 0
        response, more = await asyncio.to_thread(self._settlement.balances, skip, size)
        response.next_page_token = str(skip + size) if more else ""
        return response

    async def ProposeRewardRoot(
        self, request: pb.ProposeRewardRootRequest, context: Context
    ) -> pb.RewardRoot:
        return await asyncio.to_thread(
            self._settlement.propose, RequestId.of(current_principal().name, request)
        )

    async def GetRewardRoot(self, request: pb.GetRewardRootRequest, context: Context) -> pb.RewardRoot:
        return await asyncio.to_thread(self._settlement.reward_root, request.name)

    async def ListRewardRoots(
        self, request: pb.ListRewardRootsRequest, context: Context
    ) -> pb.ListRewardRootsResponse:
        size = request.page_size or _PAGE
        below = _token(request.page_token)
        roots = await asyncio.to_thread(self._settlement.reward_roots, below, size + 1)
        token = roots[size - 1].name.rsplit("/", 1)[1] if len(roots) > size else ""
        return pb.ListRewardRootsResponse(reward_roots=roots[:size], next_page_token=token)

    async def GetRewardProof(self, request: pb.GetRewardProofRequest, context: Context) -> pb.RewardProof:
        return await asyncio.to_thread(self._settlement.reward_proof, request.address)


def _token(text: str) -> int | None:
    """A page token is the number of the last row before the page."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument("page_token", "page_token", "is not a token of an earlier page", text)
    return int(text)
