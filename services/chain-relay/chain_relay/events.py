"""Topics in: which handler takes which event. What goes out is written in batch_states.py."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from openledger.attribution.v1 import attribution_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from sqlalchemy.orm import Session

from chain_relay import metrics
from chain_relay.answers import Terms, record_answer
from chain_relay.registrar import record_model_version, record_snapshot
from servicekit import topics
from servicekit.consumer import Handler
from servicekit.eventlog.base import Topic
from servicekit.events import Event

logger = logging.getLogger(__name__)

GROUP = "chain-relay"


def handlers(terms: Terms) -> Mapping[str | Topic, Mapping[str, Handler]]:
    """By topic, then by event type."""

    def on_scored(session: Session, event: Event[attribution_pb2.AttributionScored]) -> None:
        if record_answer(session, event.message, terms):
            metrics.ANSWERS.inc()
            logger.info("answer taken in", extra={"inference": event.message.attribution.inference})

    def on_sealed(session: Session, event: Event[datanet_events.SnapshotSealed]) -> None:
        record_snapshot(session, event.message)

    def on_version(session: Session, event: Event[trainer_events.ModelVersionChanged]) -> None:
        record_model_version(session, event.message)

    return {
        topics.ATTRIBUTION_SCORED_V1: {
            attribution_pb2.AttributionScored.DESCRIPTOR.full_name: on_scored,
        },
        topics.DATANET_SNAPSHOT_V1: {datanet_events.SnapshotSealed.DESCRIPTOR.full_name: on_sealed},
        topics.MODEL_VERSION_V1: {trainer_events.ModelVersionChanged.DESCRIPTOR.full_name: on_version},
    }
