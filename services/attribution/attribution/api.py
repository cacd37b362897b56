"""The gRPC API: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import grpc
from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceServicer
from sqlalchemy import Engine

from attribution import convert, store
from attribution.access import check_reader, reads_all
from attribution.summary import summarize
from identity.names import AttributionName, InferenceName
from servicekit import names
from servicekit.auth import current_principal
from servicekit.database import reading
from servicekit.database.watches import Changes
from servicekit.errors import NotFound
from servicekit.lists import Query

Context = grpc.aio.ServicerContext[Any, Any]

_ANSWER_BEFORE_DEADLINE_S = 0.5
"""A waiting call returns this long before its deadline: PENDING is more useful than DEADLINE_EXCEEDED."""


class AttributionApi(AttributionServiceServicer):
    """AttributionService over one database."""

    def __init__(self, engine: Engine, changes: Changes) -> None:
        self._engine = engine
        self._changes = changes

    async def GetAttribution(self, request: pb.GetAttributionRequest, context: Context) -> pb.Attribution:
        """See the proto. A waiting call also waits for an answer that is not known yet: its event may be in transit.

        Raises NotFound, or PermissionDenied unless the caller sent the prompt or has a role that reads all.
        """
        if request.name.startswith("inferences/"):
            inference = names.parse("name", InferenceName, request.name).inference
        else:
            inference = names.parse("name", AttributionName, request.name).inference
        found = await asyncio.to_thread(self._get, inference)
        if request.wait and not _is_scored(found):
            wait_s = (context.time_remaining() or 0.0) - _ANSWER_BEFORE_DEADLINE_S
            found = await self._scored(inference, wait_s)
        if found is None:
            raise NotFound("attribution", request.name)
        check_reader(current_principal(), found.principal, request.name)
        return found

    async def ListAttributions(
        self, request: pb.ListAttributionsRequest, context: Context
    ) -> pb.ListAttributionsResponse:
        """See the proto. Callers without a role that reads all see the answers to their own prompts."""
        principal = current_principal()
        principal_name = None if reads_all(principal) else principal.name
        return await asyncio.to_thread(self._list, request, principal_name)

    async def SummarizeAttributions(
        self, request: pb.SummarizeAttributionsRequest, context: Context
    ) -> pb.AttributionSummary:
        """See the proto."""
        return await asyncio.to_thread(self._summarize, request.model_version)

    async def ListAttributionIndexes(
        self, request: pb.ListAttributionIndexesRequest, context: Context
    ) -> pb.ListAttributionIndexesResponse:
        """See the proto."""
        return await asyncio.to_thread(self._indexes, request)

    async def _scored(self, inference: str, wait_s: float) -> pb.Attribution | None:
        """Returns the attribution once it is scored, or its state after `wait_s` seconds."""
        try:
            async with asyncio.timeout(wait_s), aclosing(self._changes.watch(inference)) as changes:
                async for _ in changes:
                    found = await asyncio.to_thread(self._get, inference)
                    if _is_scored(found):
                        return found
        except TimeoutError:
            pass
        return await asyncio.to_thread(self._get, inference)

    def _get(self, inference: str) -> pb.Attribution | None:
        with reading(self._engine) as session:
            row = session.get(store.AnswerRow, inference)
            return None if row is None else convert.attribution(row)

    def _list(
        self, request: pb.ListAttributionsRequest, principal_name: str | None
    ) -> pb.ListAttributionsResponse:
        full = convert.is_full(request.view)
        with reading(self._engine) as session:
            page = store.answers(
                session, Query.of(request), model_version=request.model_version, principal=principal_name
            )
            return pb.ListAttributionsResponse(
                attributions=[convert.attribution(row, full=full) for row in page.items],
                next_page_token=page.next_page_token,
                total_size=page.total_size,
            )

    def _summarize(self, model_version: str) -> pb.AttributionSummary:
        with reading(self._engine) as session:
            return convert.summary(summarize(session, model_version))

    def _indexes(self, request: pb.ListAttributionIndexesRequest) -> pb.ListAttributionIndexesResponse:
        with reading(self._engine) as session:
            page = store.indexes(session, Query.of(request))
            return pb.ListAttributionIndexesResponse(
                indexes=map(convert.index, page.items),
                next_page_token=page.next_page_token,
                total_size=page.total_size,
            )


def _is_scored(found: pb.Attribution | None) -> bool:
    return found is not None and found.state == pb.ATTRIBUTION_STATE_SCORED
