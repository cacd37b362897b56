"""What this service tells others. It listens to no one."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1 import events_pb2
from sqlalchemy.orm import Session

from datanet import convert
from datanet.definition import Datanet
from datanet.entities import Snapshot, StoredRecord
from servicekit import outbox
from servicekit.events import new_event
from servicekit.topics import DATANET_CONTRIBUTION_V1, DATANET_SNAPSHOT_V1

SOURCE = "openledger/datanet"


def contributions_recorded(session: Session, records: Sequence[StoredRecord]) -> None:
    """Tells that records came in or changed their state, when the caller's transaction commits."""
    time = Timestamp()
    time.GetCurrentTime()
    outbox.add_all(
        session,
        [
            new_event(DATANET_CONTRIBUTION_V1, record.datanet, _recorded(record, time), SOURCE)
            for record in records
        ],
    )


def snapshot_sealed(session: Session, snapshot: Snapshot, datanet: Datanet) -> None:
    """Tells that a snapshot was sealed, when the caller's transaction commits."""
    message = events_pb2.SnapshotSealed(snapshot=convert.snapshot(snapshot), datanet=convert.datanet(datanet))
    outbox.add(session, new_event(DATANET_SNAPSHOT_V1, datanet.name, message, SOURCE))


def _recorded(record: StoredRecord, time: Timestamp) -> events_pb2.ContributionRecorded:
    return events_pb2.ContributionRecorded(
        datanet=record.datanet,
        contributor=record.contributor,
        record_digest=record.digest,
        state=pb.RecordState.ValueType(record.state),
        rule=record.rule,
        event_time=time,
    )
