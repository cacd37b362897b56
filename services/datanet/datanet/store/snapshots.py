"""Snapshots in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from datanet.entities import Snapshot
from datanet.snapshot import Count
from datanet.store.tables import SnapshotRow
from identity.names import DatanetName, SnapshotName


def get(session: Session, name: SnapshotName) -> Snapshot | None:
    """One snapshot."""
    row = session.get(SnapshotRow, (name.datanet, name.snapshot))
    return _snapshot(row) if row else None


def last_number(session: Session, name: DatanetName) -> int:
    """0 when nothing was sealed."""
    query = select(func.max(SnapshotRow.number)).where(SnapshotRow.datanet == name.datanet)
    return session.scalar(query) or 0


def page(session: Session, name: DatanetName, before: int, limit: int) -> list[Snapshot]:
    """Snapshots newest first, below number `before` (0 means from the newest)."""
    query = select(SnapshotRow).where(SnapshotRow.datanet == name.datanet)
    if before:
        query = query.where(SnapshotRow.number < before)
    return [_snapshot(row) for row in session.scalars(query.order_by(SnapshotRow.number.desc()).limit(limit))]


def add(session: Session, made: Snapshot) -> None:
    """Inserts a snapshot."""
    session.add(
        SnapshotRow(
            datanet=DatanetName.parse(made.datanet).datanet,
            number=made.number,
            root=made.root,
            manifest_digest=made.manifest_digest,
            records_digest=made.records_digest,
            record_count=made.record_count,
            cluster_count=made.cluster_count,
            near_duplicate_cluster_count=made.near_duplicate_cluster_count,
            counts={
                "splits": _count_lists(made.splits),
                "contributors": _count_lists(made.contributors),
                "rejected": [list(each) for each in made.rejected],
            },
            seal_time=made.seal_time,
        )
    )
    session.flush()


def _snapshot(row: SnapshotRow) -> Snapshot:
    return Snapshot(
        datanet=str(DatanetName(row.datanet)),
        number=row.number,
        root=row.root,
        manifest_digest=row.manifest_digest,
        records_digest=row.records_digest,
        record_count=row.record_count,
        cluster_count=row.cluster_count,
        near_duplicate_cluster_count=row.near_duplicate_cluster_count,
        splits=tuple(Count(*each) for each in row.counts["splits"]),
        contributors=tuple(Count(*each) for each in row.counts["contributors"]),
        rejected=tuple((rule, total) for rule, total in row.counts["rejected"]),
        seal_time=row.seal_time,
    )


def _count_lists(counts: Iterable[Count]) -> list[list[str | int]]:
    return [[each.name, each.records, each.clusters] for each in counts]
