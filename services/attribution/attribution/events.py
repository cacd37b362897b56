"""Consumes snapshots, model versions and answers; publishes attributions.

A handler only stores an event's content, in the inbox's transaction. Threads that read the database compute gradients, so
an answer whose index is not built yet waits in the database and delays no other event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1 import trainer_pb2
from sqlalchemy import select
from sqlalchemy.orm import Session

from attribution import convert, metrics, store
from identity.digest import is_digest
from identity.names import InferenceName, InvalidName, ModelVersionName, SnapshotName
from servicekit.database import utc_now
from servicekit.delivery import outbox
from servicekit.eventlog.events import Event, InvalidEvent, new_event
from servicekit.eventlog.topics import ATTRIBUTION_SCORED_V1
from servicekit.timestamps import from_proto, to_proto

SOURCE = "openledger/attribution"


def snapshot_sealed(session: Session, event: Event[datanet_events.SnapshotSealed]) -> None:
    """Stores the Datanet's treasury address if the snapshot is its newest."""
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
    """Stores a version; requests its index when it is promoted.

    A version that is only trained or evaluated serves no users, so its index is requested when the first of its answers
    arrives: an index takes a minute of every core. Raises InvalidEvent for a version without a name or a digest.
    """
    version = event.message.model_version
    digests = (version.digest, version.base_digest, version.adapter_digest, version.training_manifest_digest)
    try:
        ModelVersionName.parse(version.name)
    except InvalidName as error:
        raise InvalidEvent("BAD_MODEL_VERSION", str(error)) from None
    if not all(is_digest(digest) for digest in digests):
        raise InvalidEvent(
            "BAD_MODEL_VERSION",
            f"{version.name} needs a digest (sha256:...) for version, base, adapter and manifest; got {digests}",
        )
    time = from_proto(event.message.event_time) if event.message.HasField("event_time") else event.time
    row = session.get(store.ModelVersionRow, version.name)
    if row is None:
        row = store.ModelVersionRow(name=version.name, published_at=time)
        session.add(row)
    elif row.published_at > time:
        return
    row.version_digest, row.base_digest, row.adapter_digest, row.training_manifest_digest = digests
    row.published_at = time
    session.flush()
    if version.state == trainer_pb2.MODEL_VERSION_STATE_PROMOTED:
        store.request_index(session, row, utc_now())


def inferences_completed(session: Session, events: Sequence[Event[inference_pb2.InferenceCompleted]]) -> None:
    """Stores answers, to be scored when their index is ready. A repeated event of a known answer changes nothing."""
    answers = {_answer_id(event.message): event for event in events}
    known = set(session.scalars(select(store.AnswerRow.id).where(store.AnswerRow.id.in_(answers))))
    now = utc_now()
    new = [_row(answer_id, event, now) for answer_id, event in answers.items() if answer_id not in known]
    session.add_all(new)
    session.flush()
    metrics.answers_received(len(new))


def _answer_id(answer: inference_pb2.InferenceCompleted) -> str:
    """Returns the answer's id. Raises InvalidEvent for an answer that cannot be attributed to a model."""
    try:
        inference = InferenceName.parse(answer.inference).inference
    except InvalidName as error:
        raise InvalidEvent("BAD_ANSWER", str(error)) from None
    model = answer.model
    if not is_digest(model.base_digest) or bool(model.adapter_digest) != bool(model.version_digest):
        message = f"{answer.inference} needs a base digest, and a version digest exactly if it has an adapter"
        raise InvalidEvent("BAD_ANSWER", message)
    return inference


def _row(answer_id: str, event: Event[inference_pb2.InferenceCompleted], now: datetime) -> store.AnswerRow:
    answer = event.message
    return store.AnswerRow(
        id=answer_id,
        model_version=answer.model.name,
        version_digest=answer.model.version_digest,
        principal=answer.principal,
        pending=True,
        event=answer.SerializeToString(),
        traceparent=event.traceparent or "",
        not_before=now,
    )


def attribution_scored(session: Session, row: store.AnswerRow, now: datetime) -> None:
    """Publishes that an answer was scored, when the caller's transaction commits."""
    attribution = convert.attribution(row)
    datanets = {share.datanet for share in attribution.shares}
    message = attribution_pb2.AttributionScored(
        attribution=attribution,
        event_time=to_proto(now),
        treasury_addresses=store.treasuries(session, datanets),
    )
    outbox.add(session, new_event(ATTRIBUTION_SCORED_V1, attribution.inference, message, SOURCE))
