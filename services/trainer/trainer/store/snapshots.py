"""The read model of sealed snapshots, built from datanet's events."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from trainer.store.tables import SnapshotRow


@dataclass(frozen=True, kw_only=True)
class SealedSnapshot:
    """A snapshot that can be trained on."""

    name: str
    root: str
    manifest_digest: str
    records_digest: str
    prompt: str
    completion: str


def put(session: Session, snapshot: SealedSnapshot) -> None:
    """Inserts a snapshot; one that is known stays as it is, because none ever changes."""
    if session.get(SnapshotRow, snapshot.name) is None:
        session.add(SnapshotRow(**vars(snapshot)))


def get(session: Session, name: str) -> SealedSnapshot | None:
    row = session.get(SnapshotRow, name)
    if row is None:
        return None
    return SealedSnapshot(
        name=row.name,
        root=row.root,
        manifest_digest=row.manifest_digest,
        records_digest=row.records_digest,
        prompt=row.prompt,
        completion=row.completion,
    )
