"""Topics in and out: model versions come in, finished answers go out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.inference.v1 import inference_pb2 as pb
from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy.orm import Session

from identity.names import InvalidName, ModelVersionName
from inference import store
from inference.answer import Answer, Finish
from inference.catalogue import Served, Version, VersionState
from servicekit.events import Event, InvalidEvent
from servicekit.topics import INFERENCE_COMPLETED_V1

SOURCE = "openledger/inference"

LeftOut = Literal["prompt", "prompt_token_ids", "output", "output_token_ids", "output_log_probabilities"]
"""Fields of an answer's event that policy may leave out. Token ids are text in another form: leaving out a
text alone spares readers of the topic from it, leaving out its ids too withholds it, and attribution with
it."""

FINISH_REASONS: dict[Finish, pb.FinishReason.ValueType] = {
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


def model_version_changed(session: Session, event: Event[events_pb2.ModelVersionChanged]) -> None:
    """Remembers a version's state. Raises InvalidEvent for one that names no version, state or digests."""
    told = event.message.model_version
    try:
        ModelVersionName.parse(told.name)
    except InvalidName as error:
        raise InvalidEvent("BAD_MODEL_VERSION", str(error)) from None
    state = _STATES.get(told.state)
    if state is None or not told.base_digest or not told.adapter_digest:
        raise InvalidEvent(
            "BAD_MODEL_VERSION", f"{told.name} lacks a known state, a base or an adapter digest"
        )
    time = event.message.event_time.ToDatetime(UTC) if event.message.HasField("event_time") else event.time
    changes = [change.change_time.ToDatetime(UTC) for change in told.history if change.state == told.state]
    version = Version(
        name=told.name,
        state=state,
        version_digest=told.digest,
        base_digest=told.base_digest,
        adapter_digest=told.adapter_digest,
        report_digest=told.report_digest,
        owner=told.owner,
        changed=max(changes, default=time),
    )
    store.put_version(session, version, time)


def served_model(served: Served) -> pb.ServedModel:
    """As the API and the answer's event tell it."""
    return pb.ServedModel(
        name=served.name,
        base_digest=served.base_digest,
        adapter_digest=served.adapter_digest,
        version_digest=served.version_digest,
        report_digest=served.report_digest,
        is_default=served.is_default,
    )


def inference_completed(
    answer: Answer, left_out: Collection[LeftOut], compute: str
) -> Event[pb.InferenceCompleted]:
    """The event of a finished answer. Its id is the inference's: however often it is sent, it is one event."""
    question, sampling = answer.question, answer.question.sampling
    message = pb.InferenceCompleted(
        inference=question.inference,
        model=served_model(question.served),
        prompt_token_ids=question.prompt_tokens,
        output_token_ids=answer.output_tokens,
        prompt=question.prompt,
        output=answer.text,
        output_log_probabilities=answer.log_probabilities,
        sampling=pb.SamplingParameters(
            max_output_tokens=sampling.max_output_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=sampling.stop,
        ),
        usage=usage(answer),
        reason=FINISH_REASONS[answer.finish],
        receive_time=_timestamp(question.received),
        finish_time=_timestamp(answer.finished),
        principal=question.principal,
        model_owner=question.served.owner,
        request_id=question.request_id,
        left_out=sorted(left_out),
        compute=compute,
    )
    for name in left_out:
        message.ClearField(name)
    return Event(
        id=question.inference.removeprefix("inferences/"),
        type=message.DESCRIPTOR.full_name,
        source=SOURCE,
        time=answer.finished,
        topic=INFERENCE_COMPLETED_V1.name,
        key=question.inference,
        message=message,
        traceparent=question.traceparent,
    )


def usage(answer: Answer) -> pb.Usage:
    """Tokens counted for the fee: of a cancelled answer, those that were made."""
    return pb.Usage(input_tokens=len(answer.question.prompt_tokens), output_tokens=len(answer.output_tokens))


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
