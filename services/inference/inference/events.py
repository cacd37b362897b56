"""Topics in and out: model versions come in, finished answers go out."""

from __future__ import annotations

from collections.abc import Collection

from openledger.inference.v1 import inference_pb2 as pb
from openledger.trainer.v1 import events_pb2
from sqlalchemy.orm import Session

from inference import convert, store
from inference.answer import Answer
from inference.settings import LeftOut
from servicekit import timestamps
from servicekit.eventlog.events import Event, InvalidEvent
from servicekit.eventlog.topics import INFERENCE_COMPLETED_V1

SOURCE = "openledger/inference"


def model_version_changed(session: Session, event: Event[events_pb2.ModelVersionChanged]) -> None:
    """Stores a version's state, and in the same transaction that of the version which its promotion retires.

    Raises InvalidEvent for one without a valid name, state or digests.
    """
    message = event.message
    event_time = timestamps.from_proto(message.event_time) if message.HasField("event_time") else event.time
    changed = [message.model_version, *([message.retired] if message.HasField("retired") else [])]
    try:
        versions = [convert.version(each, event_time) for each in changed]
    except convert.InvalidVersion as error:
        raise InvalidEvent("BAD_MODEL_VERSION", str(error)) from None
    for version in versions:
        store.put_version(session, version, event_time)


def inference_completed(
    answer: Answer, left_out: Collection[LeftOut], compute: str
) -> Event[pb.InferenceCompleted]:
    """Returns the event of a finished answer. Its id is the inference's: however often it is sent, it is one event."""
    request = answer.request
    message = convert.inference_completed(answer, left_out, compute)
    return Event(
        id=request.inference.removeprefix("inferences/"),
        type=message.DESCRIPTOR.full_name,
        source=SOURCE,
        time=answer.finished,
        topic=INFERENCE_COMPLETED_V1.name,
        key=request.inference,
        message=message,
        traceparent=request.traceparent,
    )
