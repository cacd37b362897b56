"""Which stored objects this service needs: what garbage collection must never take (`servicekit.references`)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.definition import QualityPolicy
from datanet.store.tables import DatanetRow, SnapshotRow


def references(session: Session) -> Iterator[str]:
    """Snapshots' manifests and records, and the items that contributions are checked against."""
    for snapshot in session.execute(select(SnapshotRow.manifest_digest, SnapshotRow.records_digest)):
        yield from snapshot
    for policy in session.scalars(select(DatanetRow.policy)):
        yield QualityPolicy.from_json(policy).gate_items_digest
