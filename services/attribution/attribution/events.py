"""Topics in and out: snapshots, model versions and answers come in; attributions go out.

A handler only takes an event in, inside the inbox's transaction; gradients are the work of threads that read what it
wrote. So an answer whose index is not built yet waits in the database and holds up nobody.
"""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1 import trainer_pb2
from sqlalchemy.orm import Session

from attribution import convert, metrics, store
from identity.digest import is_digest
from identity.names import InferenceName, InvalidName, ModelVersionName, SnapshotName
from servicekit import outbox
from servicekit.database import utc_now
from servicekit.events import Event, InvalidEvent, new_event
from servicekit.telemetry import current_traceparent
from servicekit.topics import ATTRIBUTION_SCORED_V1

SOURCE = "openledger/attribution"


def snapshot_sealed(session: Session, event: Event[datanet_events.SnapshotSealed]) -> None:
    """Remembers where the Datanet's unattributed part goes, as of its newest snapshot."""
    datanet = event.message.datanet
    try:
        number = SnapshotName.parse(event.message.snapshot.name).snapshot
    except InvalidName as error:
        raise InvalidEvent("BAD_SNAPSHOT", str(error)) from None
    known = session.get(store.TreasuryRow, datanet.name)
    if known is None:
        session.add(
            store.TreasuryRow(datanet=datanet.name, address=datanet.treasury_address, snapshot=number)
        )
    elif number >= known.snapshot:
        known.address, known.snapshot = datanet.treasury_address, number


def model_version_changed(session: Session, event: Event[trainer_events.ModelVersionChanged]) -> None:
    """Remembers a version; asks for its index when it is promoted.

    A version that is only trained or evaluated answers nobody, so it waits until one of its answers is seen: an
    index takes a minute of every core. Raises InvalidEvent for one that lacks a name or a digest.
    """
    told = event.message.model_version
    digests = (told.digest, told.base_digest, told.adapter_digest, told.training_manifest_digest)
    try:
        ModelVersionName.parse(told.name)
    except InvalidName as error:
        raise InvalidEvent("BAD_MODEL_VERSION", str(error)) from None
    if not all(is_digest(digest) for digest in digests):
        raise InvalidEvent("BAD_MODEL_VERSION", f"{told.name} has something else than digests: {digests}")
    time = event.message.event_time.ToDatetime(UTC) if event.message.HasField("event_time") else event.time
    row = session.get(store.ModelVersionRow, told.name)
    if row is None:
        row = store.ModelVersionRow(name=told.name, told=time)
        session.add(row)
    elif row.told > time:
        return
    row.version_digest, row.base_digest, row.adapter_digest, row.training_manifest_digest = digests
    row.told = time
    session.flush()
    if told.state == trainer_pb2.MODEL_VERSION_STATE_PROMOTED:
        store.want_index(session, row, utc_now())


def inference_completed(session: Session, event: Event[inference_pb2.InferenceCompleted]) -> None:
    """Takes an answer in, to be scored when its index is there. A repeat of a known answer changes nothing."""
    answer = event.message
    try:
        inference = InferenceName.parse(answer.inference).inference
    except InvalidName as error:
        raise InvalidEvent("BAD_ANSWER", str(error)) from None
    model = answer.model
    if not is_digest(model.base_digest) or bool(model.adapter_digest) != bool(model.version_digest):
        raise InvalidEvent("BAD_ANSWER", f"{answer.inference} does not say which base and version answered")
    if session.get(store.AnswerRow, inference) is None:
        session.add(
            store.AnswerRow(
                id=inference,
                model_version=model.name,
                version_digest=model.version_digest,
                principal=answer.principal,
                pending=True,
                event=answer.SerializeToString(),
                traceparent=current_traceparent(),
                not_before=utc_now(),
            )
        )
        metrics.answer_received()


def attribution_scored(session: Session, row: store.AnswerRow, now: datetime) -> None:
    """Tells that an answer was scored, when the caller's transaction commits."""
    attribution = convert.attribution(row)
    datanets = {share.datanet for share in attribution.shares}
    time = Timestamp()
    time.FromDatetime(now)
    message = attribution_pb2.AttributionScored(
        attribution=attribution, event_time=time, treasury_addresses=store.treasuries(session, datanets)
    )
    outbox.add(session, new_event(ATTRIBUTION_SCORED_V1, attribution.inference, message, SOURCE))
