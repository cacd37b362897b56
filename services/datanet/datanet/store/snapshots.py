"""Snapshots in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from datanet.entities import MAX_SHOWN_CONTRIBUTORS, Snapshot
from datanet.snapshot import Count
from datanet.store.tables import SnapshotRow
from identity.names import DatanetName, SnapshotName
from servicekit.lists import INTEGER, TEXT, TIME, Field, Listing, Page, Query, numbered

SNAPSHOTS = Listing(
    fields={
        "name": Field(SnapshotRow.number, numbered(SnapshotName, lambda name: name.snapshot)),
        "root": Field(SnapshotRow.root, TEXT, sortable=False),
        "record_count": Field(SnapshotRow.record_count, INTEGER),
        "cluster_count": Field(SnapshotRow.cluster_count, INTEGER),
        "near_duplicate_cluster_count": Field(SnapshotRow.near_duplicate_cluster_count, INTEGER),
        "seal_time": Field(SnapshotRow.seal_time, TIME),
    },
    key=[SnapshotRow.number.desc()],
)


def get(session: Session, name: SnapshotName) -> Snapshot | None:
    """Returns the snapshot of this name."""
    row = session.get(SnapshotRow, (name.datanet, name.snapshot))
    return _snapshot(row) if row else None


def last_number(session: Session, name: DatanetName) -> int:
    """Returns the number of the newest snapshot; 0 if there is none."""
    query = select(func.max(SnapshotRow.number)).where(SnapshotRow.datanet == name.datanet)
    return session.scalar(query) or 0


def page(session: Session, name: DatanetName, query: Query) -> Page[Snapshot]:
    """Returns a page of a Datanet's snapshots, newest first unless the query says otherwise."""
    rows = select(SnapshotRow).where(SnapshotRow.datanet == name.datanet)
    page = SNAPSHOTS.page(session, rows, query, bytes_of=_bytes)
    return Page([_snapshot(row) for row in page.items], page.next_page_token, page.total_size)


def _bytes(row: SnapshotRow) -> int:
    """Size of a snapshot in a response. Its counts name contributors and rules in ASCII, each with the Datanet's name."""
    return len(str(row.counts)) + 500


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
                "contributor_count": made.contributor_count,
                "rejected": [list(each) for each in made.rejected],
            },
            seal_time=made.seal_time,
            read_time=made.read_time,
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
        # Earlier rows have all contributors and no count.
        contributors=tuple(Count(*each) for each in row.counts["contributors"][:MAX_SHOWN_CONTRIBUTORS]),
        contributor_count=row.counts.get("contributor_count", len(row.counts["contributors"])),
        rejected=tuple((rule, total) for rule, total in row.counts["rejected"]),
        seal_time=row.seal_time,
        read_time=row.read_time,
    )


def _count_lists(counts: Iterable[Count]) -> list[list[str | int]]:
    return [[each.name, each.records, each.clusters] for each in counts]
