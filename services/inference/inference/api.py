"""The gRPC API: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1 import inference_pb2_grpc as pb_grpc

from inference import convert
from inference.catalogue import SERVED_MODELS, size_in_response
from inference.frontend import Frontend
from servicekit.auth import current_principal
from servicekit.telemetry.traces import current_traceparent


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """Generate and ListServedModels."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    async def Generate(
        self,
        request: pb.GenerateRequest,
        context: grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateResponse],
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Yields where the answer comes from, its text, and how it ended."""
        stream = await self._frontend.submit(
            model=request.model,
            prompt=request.prompt,
            sampling=convert.sampling(request.sampling),
            principal=current_principal().name,
            request_id=request.request_id,
            timeout_s=context.time_remaining(),
            traceparent=current_traceparent() or None,
        )
        try:
            yield convert.started(stream.request.inference, stream.request.served)
            async for piece in stream:
                yield convert.delta(piece)
            assert stream.answer is not None
            yield convert.finished(stream.answer)
        finally:
            stream.close()  # also when the client left: gRPC cancels this coroutine

    async def ListServedModels(
        self,
        request: pb.ListServedModelsRequest,
        context: grpc.aio.ServicerContext[pb.ListServedModelsRequest, pb.ListServedModelsResponse],
    ) -> pb.ListServedModelsResponse:
        """Returns a page of the base model and all promoted versions."""
        page = SERVED_MODELS.page_of(self._frontend.served(), request, bytes_of=size_in_response)
        return pb.ListServedModelsResponse(
            models=map(convert.served_model, page.items),
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )
