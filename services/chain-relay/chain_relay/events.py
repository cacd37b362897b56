"""Topics in: answers, snapshots and model versions. Topics out: the event of a batch's new state."""

from __future__ import annotations

import logging
from datetime import datetime

from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from sqlalchemy.orm import Session

from chain_relay import convert, metrics
from chain_relay.answers import Terms, record_answer
from chain_relay.registrar import record_model_version, record_snapshot
from chain_relay.store import batches
from chain_relay.store.tables import Batch
from servicekit import timestamps
from servicekit.delivery import outbox
from servicekit.eventlog import topics
from servicekit.eventlog.events import Event, new_event

logger = logging.getLogger(__name__)

GROUP = "chain-relay"
SOURCE = "openledger/chain-relay"


def attribution_scored(
    session: Session, event: Event[attribution_pb2.AttributionScored], *, terms: Terms
) -> None:
    """Records an attributed answer with its fee. Raises InvalidEvent for one that the ledger cannot hold."""
    answer = convert.attributed_answer(event.message)
    if record_answer(session, answer, terms):
        metrics.ANSWERS.inc()
        logger.info("answer recorded", extra={"inference": answer.inference})


def snapshot_sealed(session: Session, event: Event[datanet_events.SnapshotSealed]) -> None:
    """Records that a snapshot must be registered on chain. Raises InvalidEvent for one that cannot be."""
    record_snapshot(session, convert.snapshot_registration(event.message))


def model_version_changed(session: Session, event: Event[trainer_events.ModelVersionChanged]) -> None:
    """Records that a model version must be registered on chain, and the version that its promotion retires.

    Raises InvalidEvent for one that cannot be.
    """
    message = event.message
    event_time = timestamps.from_proto(message.event_time) if message.HasField("event_time") else event.time
    changed = [message.model_version, *([message.retired] if message.HasField("retired") else [])]
    for registration in [convert.model_registration(version) for version in changed]:
        record_model_version(session, registration, event_time)


def add_batch_changed(session: Session, batch: Batch, *, moved_back: bool, time: datetime) -> None:
    """Publishes a batch's new state when the caller's transaction commits."""
    ledger = batches.ledger(session)
    history = batches.history(session, batch.seq)
    message = convert.batch_changed_message(batch, history, ledger, moved_back=moved_back, time=time)
    outbox.add(session, new_event(topics.SETTLEMENT_BATCH_V1, ledger.address, message, SOURCE))
