"""The facts of this service: what reconciliation compares with the event log and with other services (`servicekit.audit`)."""

from __future__ import annotations

from collections.abc import Iterator

from openledger.audit.v1.audit_pb2 import ContributorCounts, Fact, Record, SealedSnapshot
from openledger.datanet.v1.datanet_pb2 import RecordState
from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.store.tables import ContributorRow, RecordRow, SnapshotRow
from servicekit.audit import ROWS, stamp


def facts(session: Session) -> Iterator[Fact]:
    """Yields every record without its content, every contributor's counts, every snapshot."""
    yield from _records(session)
    for row in session.scalars(select(ContributorRow), execution_options={"yield_per": ROWS}):
        yield Fact(
            contributor_counts=ContributorCounts(
                name=f"datanets/{row.datanet}/contributors/{row.id}",
                accepted_count=row.accepted_count,
                pending_count=row.pending_count,
                rejected_count=row.rejected_count,
            )
        )
    for snapshot in session.scalars(
        select(SnapshotRow).order_by(SnapshotRow.datanet, SnapshotRow.number),
        execution_options={"yield_per": ROWS},
    ):
        yield Fact(sealed_snapshot=_snapshot(snapshot))


def _records(session: Session) -> Iterator[Fact]:
    columns = (
        RecordRow.seq,
        RecordRow.datanet,
        RecordRow.contributor,
        RecordRow.digest,
        RecordRow.state,
        RecordRow.rule,
        RecordRow.create_time,
    )
    query = select(*columns).order_by(RecordRow.seq)
    for row in session.execute(query, execution_options={"yield_per": ROWS}):
        yield Fact(
            record=Record(
                seq=row.seq,
                datanet=f"datanets/{row.datanet}",
                contributor=f"datanets/{row.datanet}/contributors/{row.contributor}",
                digest=row.digest,
                state=RecordState.ValueType(row.state),
                rule=row.rule,
                create_time=stamp(row.create_time),
            )
        )


def _snapshot(row: SnapshotRow) -> SealedSnapshot:
    return SealedSnapshot(
        name=f"datanets/{row.datanet}/snapshots/{row.number}",
        datanet=f"datanets/{row.datanet}",
        number=row.number,
        root=row.root,
        manifest_digest=row.manifest_digest,
        records_digest=row.records_digest,
        record_count=row.record_count,
        seal_time=stamp(row.seal_time),
        read_time=stamp(row.read_time) if row.read_time else None,
    )
