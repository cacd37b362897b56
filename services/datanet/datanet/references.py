"""The stored objects that this service needs: garbage collection must never delete them (`servicekit.objects.references`)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.definition import QualityPolicy
from datanet.store.tables import DatanetRow, SnapshotRow


def references(session: Session) -> Iterator[str]:
    """Yields the digests of snapshots' manifests and records, and of evaluation items that contributions are checked against."""
    for snapshot in session.execute(select(SnapshotRow.manifest_digest, SnapshotRow.records_digest)):
        yield from snapshot
    for policy in session.scalars(select(DatanetRow.policy)):
        yield QualityPolicy.from_json(policy).gate_items_digest
