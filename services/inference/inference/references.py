"""Which stored objects this service needs: what garbage collection must never take (`servicekit.objects.references`)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from inference.store import ModelVersionRow
from servicekit.objects.references import References


def references(base_digest: str) -> References:
    """The base model that is served, and every version's base, adapter and report."""

    def found(session: Session) -> Iterator[str]:
        yield base_digest
        row = ModelVersionRow
        for digests in session.execute(select(row.base_digest, row.adapter_digest, row.report_digest)):
            yield from digests

    return found
