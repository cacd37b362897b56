"""Events that this service publishes. It consumes none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1 import events_pb2
from sqlalchemy.orm import Session

from datanet import convert
from datanet.definition import Datanet
from datanet.entities import Snapshot, StoredRecord
from servicekit.database import utc_now
from servicekit.delivery import outbox
from servicekit.eventlog.events import new_event
from servicekit.eventlog.topics import DATANET_CONTRIBUTION_V1, DATANET_SNAPSHOT_V1
from servicekit.timestamps import to_proto

SOURCE = "openledger/datanet"


def contributions_recorded(session: Session, records: Sequence[StoredRecord]) -> None:
    """Publishes that records arrived or changed their state, when the caller's transaction commits."""
    time = utc_now()
    outbox.add_all(
        session,
        [
            new_event(DATANET_CONTRIBUTION_V1, record.datanet, _recorded(record, time), SOURCE)
            for record in records
        ],
    )


def snapshot_sealed(session: Session, snapshot: Snapshot, datanet: Datanet) -> None:
    """Publishes that a snapshot was sealed, when the caller's transaction commits.

    An event must not grow with contributors or allowed values: the manifest, which it names by digest, has them.
    """
    described = convert.datanet(datanet)
    for each in described.schema.fields:
        del each.allowed_values[:]
    message = events_pb2.SnapshotSealed(snapshot=convert.snapshot(snapshot, full=False), datanet=described)
    outbox.add(session, new_event(DATANET_SNAPSHOT_V1, datanet.name, message, SOURCE))


def _recorded(record: StoredRecord, time: datetime) -> events_pb2.ContributionRecorded:
    return events_pb2.ContributionRecorded(
        datanet=record.datanet,
        contributor=record.contributor,
        record_digest=record.digest,
        state=pb.RecordState.ValueType(record.state),
        rule=record.rule,
        event_time=to_proto(time),
    )
