"""The projection of sealed snapshots: what datanet's events told."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from trainer.store.tables import SnapshotRow


@dataclass(frozen=True)
class SealedSnapshot:
    """A snapshot that can be trained on."""

    name: str
    root: str
    manifest_digest: str
    records_digest: str
    prompt: str
    completion: str


def put(session: Session, snapshot: SealedSnapshot) -> None:
    """Inserts it; a snapshot that is here already stays as it is, because none ever changes."""
    if session.get(SnapshotRow, snapshot.name) is None:
        session.add(SnapshotRow(**vars(snapshot)))


def get(session: Session, name: str) -> SealedSnapshot | None:
    row = session.get(SnapshotRow, name)
    if row is None:
        return None
    return SealedSnapshot(
        row.name, row.root, row.manifest_digest, row.records_digest, row.prompt, row.completion
    )
