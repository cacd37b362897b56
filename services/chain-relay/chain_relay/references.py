"""Which stored objects this service needs: what garbage collection must never take (`servicekit.objects.references`)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from chain_relay.store.tables import Batch, RegisteredDataset, RegisteredModel, ScoredAnswer


def references(session: Session) -> Iterator[str]:
    """Batches' data, and everything named on chain: a reader of a commitment must find what it commits to."""
    yield from session.scalars(select(Batch.data_digest))
    yield from session.scalars(select(RegisteredDataset.manifest_digest))
    row = RegisteredModel
    for digests in session.execute(select(row.base_digest, row.adapter_digest, row.report_digest)):
        yield from digests
    yield from session.scalars(select(ScoredAnswer.report_digest).distinct())
