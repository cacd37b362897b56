"""Between protobuf messages and this service's own types."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from openledger.inference.v1 import inference_pb2 as pb
from openledger.trainer.v1 import trainer_pb2

from identity.names import InvalidName, ModelVersionName
from inference.answer import Answer, Finish
from inference.catalogue import Served, Version, VersionState
from inference.sampling import DEFAULT_OUTPUT_TOKENS, Sampling
from inference.settings import LeftOut
from servicekit import timestamps

_FINISH_REASONS: dict[Finish, pb.FinishReason.ValueType] = {
    Finish.STOP: pb.FINISH_REASON_STOP,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
    Finish.CANCELLED: pb.FINISH_REASON_CANCELLED,
}

_STATES = {
    trainer_pb2.MODEL_VERSION_STATE_TRAINED: VersionState.TRAINED,
    trainer_pb2.MODEL_VERSION_STATE_EVALUATED: VersionState.EVALUATED,
    trainer_pb2.MODEL_VERSION_STATE_BLOCKED: VersionState.BLOCKED,
    trainer_pb2.MODEL_VERSION_STATE_PROMOTED: VersionState.PROMOTED,
    trainer_pb2.MODEL_VERSION_STATE_RETIRED: VersionState.RETIRED,
}


class InvalidVersion(ValueError):
    """A message that names no model version, no known state or no digests."""


def sampling(message: pb.SamplingParameters) -> Sampling:
    """Returns what a client asked for, with defaults filled in."""
    return Sampling(
        max_output_tokens=message.max_output_tokens or DEFAULT_OUTPUT_TOKENS,
        temperature=message.temperature,
        top_p=message.top_p or 1.0,
        seed=message.seed,
        stop=tuple(message.stop),
    )


def served_model(served: Served) -> pb.ServedModel:
    """Returns the form that the API and the answer event share."""
    return pb.ServedModel(
        name=served.name,
        base_digest=served.base_digest,
        adapter_digest=served.adapter_digest,
        version_digest=served.version_digest,
        report_digest=served.report_digest,
        is_default=served.is_default,
    )


def started(inference: str, served: Served) -> pb.GenerateResponse:
    """Returns the first part of an answer: where it comes from."""
    return pb.GenerateResponse(
        started=pb.GenerateResponse.Started(inference=inference, model=served_model(served))
    )


def delta(text: str) -> pb.GenerateResponse:
    """Returns a part with text."""
    return pb.GenerateResponse(delta=pb.GenerateResponse.Delta(text=text))


def finished(answer: Answer) -> pb.GenerateResponse:
    """Returns the last part of an answer: how it ended."""
    return pb.GenerateResponse(
        finished=pb.GenerateResponse.Finished(
            reason=_FINISH_REASONS[answer.finish],
            usage=_usage(answer),
            time_to_first_token=_duration(answer.time_to_first_token_s),
            duration=_duration(answer.duration_s),
        )
    )


def inference_completed(answer: Answer, left_out: Collection[LeftOut], compute: str) -> pb.InferenceCompleted:
    """Returns the message of a finished answer, without the fields in `left_out`."""
    request, chosen = answer.request, answer.request.sampling
    message = pb.InferenceCompleted(
        inference=request.inference,
        model=served_model(request.served),
        prompt_token_ids=request.prompt_tokens,
        output_token_ids=answer.output_tokens,
        prompt=request.prompt,
        output=answer.text,
        output_log_probabilities=answer.log_probabilities,
        sampling=pb.SamplingParameters(
            max_output_tokens=chosen.max_output_tokens,
            temperature=chosen.temperature,
            top_p=chosen.top_p,
            seed=chosen.seed,
            stop=chosen.stop,
        ),
        usage=_usage(answer),
        reason=_FINISH_REASONS[answer.finish],
        receive_time=timestamps.to_proto(request.received),
        finish_time=timestamps.to_proto(answer.finished),
        principal=request.principal,
        model_owner=request.served.owner,
        request_id=request.request_id,
        left_out=sorted(left_out),
        compute=compute,
    )
    for name in left_out:
        message.ClearField(name)
    return message


def version(message: trainer_pb2.ModelVersion, event_time: datetime) -> Version:
    """Returns a model version as an event describes it.

    Raises:
        InvalidVersion: it has no valid name, no known state, no base digest or no adapter digest.
    """
    try:
        ModelVersionName.parse(message.name)
    except InvalidName as error:
        raise InvalidVersion(str(error)) from None
    state = _STATES.get(message.state)
    if state is None or not message.base_digest or not message.adapter_digest:
        raise InvalidVersion(f"{message.name} lacks a known state, a base digest or an adapter digest")
    changes = [
        timestamps.from_proto(change.change_time)
        for change in message.history
        if change.state == message.state
    ]
    return Version(
        name=message.name,
        state=state,
        version_digest=message.digest,
        base_digest=message.base_digest,
        adapter_digest=message.adapter_digest,
        report_digest=message.report_digest,
        owner=message.owner,
        changed=max(changes, default=event_time),
    )


def _usage(answer: Answer) -> pb.Usage:
    """Returns the tokens counted for the fee: of a cancelled answer, those that were generated."""
    return pb.Usage(input_tokens=len(answer.request.prompt_tokens), output_tokens=len(answer.output_tokens))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
