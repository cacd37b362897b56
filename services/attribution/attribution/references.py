"""The stored objects that this service needs: garbage collection must never delete them (`servicekit.objects.references`)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from attribution.store import IndexRow, ModelVersionRow


def references(session: Session) -> Iterator[str]:
    """Yields the digests of indexes and of their inputs: bases, adapters, training manifests (which name the snapshots)."""
    yield from session.scalars(select(IndexRow.digest))
    row = ModelVersionRow
    query = select(row.base_digest, row.adapter_digest, row.training_manifest_digest)
    for digests in session.execute(query):
        yield from digests
