"""The gRPC door: translates and delegates, decides nothing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Any

import grpc
from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceServicer
from sqlalchemy import Engine

from attribution import convert, store
from attribution.access import check_reader, reads_all
from attribution.summary import summarize
from servicekit.auth import current_principal
from servicekit.database import reading
from servicekit.errors import InvalidArgument, NotFound

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 100
_LOOK_EVERY_S = 0.2
_ANSWER_BEFORE_DEADLINE_S = 0.5
"""A waiting call answers this long before its deadline: PENDING says more than DEADLINE_EXCEEDED."""


class AttributionApi(AttributionServiceServicer):
    """AttributionService over one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def GetAttribution(self, request: pb.GetAttributionRequest, context: Context) -> pb.Attribution:
        """See the proto. A waiting call also waits for an answer that is not known yet: its event may be on its way.

        Raises NotFound, PermissionDenied to all but who asked and the roles that read all.
        """
        inference = request.name.split("/")[1]
        remaining_s = context.time_remaining()
        until = time.monotonic() + (remaining_s or 0.0) - _ANSWER_BEFORE_DEADLINE_S
        while True:
            found = await asyncio.to_thread(self._get, inference)
            settled = found is not None and found.state == pb.ATTRIBUTION_STATE_SCORED
            if settled or not request.wait or time.monotonic() >= until:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        if found is None:
            raise NotFound("attribution", request.name)
        check_reader(current_principal(), found.principal, request.name)
        return found

    async def ListAttributions(
        self, request: pb.ListAttributionsRequest, context: Context
    ) -> pb.ListAttributionsResponse:
        """See the proto. Who does not read all sees the answers to their own questions."""
        principal = current_principal()
        asker = None if reads_all(principal) else principal.name
        return await asyncio.to_thread(self._list, request, asker)

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

    def _get(self, inference: str) -> pb.Attribution | None:
        with reading(self._engine) as session:
            row = session.get(store.AnswerRow, inference)
            return None if row is None else convert.attribution(row)

    def _list(self, request: pb.ListAttributionsRequest, asker: str | None) -> pb.ListAttributionsResponse:
        size = request.page_size or _DEFAULT_PAGE
        with reading(self._engine) as session:
            rows = store.answers(session, request.model_version, asker, _key(request.page_token), size + 1)
            return pb.ListAttributionsResponse(
                attributions=[convert.attribution(row) for row in rows[:size]],
                next_page_token=_token(rows[size - 1].id) if len(rows) > size else "",
            )

    def _summarize(self, model_version: str) -> pb.AttributionSummary:
        with reading(self._engine) as session:
            return summarize(session, model_version)

    def _indexes(self, request: pb.ListAttributionIndexesRequest) -> pb.ListAttributionIndexesResponse:
        size = request.page_size or _DEFAULT_PAGE
        with reading(self._engine) as session:
            rows = store.indexes(session, _key(request.page_token), size + 1)
            return pb.ListAttributionIndexesResponse(
                indexes=[convert.index(row) for row in rows[:size]],
                next_page_token=_token(rows[size - 1].model_version) if len(rows) > size else "",
            )


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _key(token: str) -> str:
    try:
        key = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        key = "\n"
    if not key.isprintable():  # PostgreSQL takes no NUL
        raise InvalidArgument(
            "page_token", "page_token", "must be the next_page_token of a previous answer", token
        )
    return key
