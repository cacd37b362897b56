"""The gRPC door: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from openledger.inference.v1 import inference_pb2 as pb
from openledger.inference.v1 import inference_pb2_grpc as pb_grpc

from inference import events
from inference.answer import Answer
from inference.reception import Reception
from inference.sampling import DEFAULT_OUTPUT_TOKENS, Sampling
from servicekit.auth import current_principal
from servicekit.errors import InvalidArgument
from servicekit.telemetry import current_traceparent

_PAGE = 100


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """Generate and ListServedModels."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    async def Generate(
        self,
        request: pb.GenerateRequest,
        context: grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateResponse],
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Where the answer comes from, its text, its end."""
        stream = await self._reception.ask(
            request.model,
            request.prompt,
            _sampling(request.sampling),
            current_principal().name,
            request.request_id,
            context.time_remaining(),
            current_traceparent() or None,
        )
        try:
            question = stream.question
            yield pb.GenerateResponse(
                started=pb.GenerateResponse.Started(
                    inference=question.inference, model=events.served_model(question.served)
                )
            )
            async for piece in stream:
                yield pb.GenerateResponse(delta=pb.GenerateResponse.Delta(text=piece))
            assert stream.answer is not None
            yield pb.GenerateResponse(finished=_finished(stream.answer))
        finally:
            stream.close()  # also when the client went away: gRPC cancels this coroutine

    async def ListServedModels(
        self,
        request: pb.ListServedModelsRequest,
        context: grpc.aio.ServicerContext[pb.ListServedModelsRequest, pb.ListServedModelsResponse],
    ) -> pb.ListServedModelsResponse:
        """The base and all promoted versions, by name."""
        served = self._reception.served()
        names = [one.name for one in served]
        start = 0
        if request.page_token:
            # The token is the last name told: pages stay right while versions come and go.
            if request.page_token not in names:
                raise InvalidArgument(
                    "page_token", "known", "is not of a list of served models", request.page_token
                )
            start = names.index(request.page_token) + 1
        size = request.page_size or _PAGE
        page = served[start : start + size]
        more = start + size < len(served)
        return pb.ListServedModelsResponse(
            models=[events.served_model(one) for one in page], next_page_token=page[-1].name if more else ""
        )


def _sampling(asked: pb.SamplingParameters) -> Sampling:
    return Sampling(
        max_output_tokens=asked.max_output_tokens or DEFAULT_OUTPUT_TOKENS,
        temperature=asked.temperature,
        top_p=asked.top_p or 1.0,
        seed=asked.seed,
        stop=tuple(asked.stop),
    )


def _finished(answer: Answer) -> pb.GenerateResponse.Finished:
    return pb.GenerateResponse.Finished(
        reason=events.FINISH_REASONS[answer.finish],
        usage=events.usage(answer),
        time_to_first_token=_duration(answer.time_to_first_token_s),
        duration=_duration(answer.duration_s),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
