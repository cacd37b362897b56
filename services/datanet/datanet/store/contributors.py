"""Contributors in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from datanet.entities import Contributor
from datanet.store.tables import ContributorRow
from identity.names import ContributorName, DatanetName


def get(session: Session, name: ContributorName) -> Contributor | None:
    """The contributor of this name."""
    row = session.get(ContributorRow, (name.datanet, name.contributor))
    return _contributor(row) if row else None


def of_principal(session: Session, name: DatanetName, principal: str) -> Contributor | None:
    """The contributor that a principal is in a Datanet."""
    query = select(ContributorRow).where(
        ContributorRow.datanet == name.datanet, ContributorRow.principal == principal
    )
    row = session.scalars(query).one_or_none()
    return _contributor(row) if row else None


def add(session: Session, made: Contributor) -> None:
    """Inserts a contributor."""
    name = ContributorName.parse(made.name)
    session.add(
        ContributorRow(
            datanet=name.datanet,
            id=name.contributor,
            principal=made.principal,
            display_name=made.display_name,
            payout_address=made.payout_address,
            consent_licence=made.consent_licence,
            consent_time=made.consent_time,
            accepted_count=0,
            pending_count=0,
            rejected_count=0,
        )
    )
    session.flush()


def page(session: Session, name: DatanetName, after: str, limit: int | None) -> list[Contributor]:
    """A Datanet's contributors by id, beyond `after`."""
    query = (
        select(ContributorRow)
        .where(ContributorRow.datanet == name.datanet, ContributorRow.id > after)
        .order_by(ContributorRow.id)
        .limit(limit)
    )
    return [_contributor(row) for row in session.scalars(query)]


def count(session: Session, name: ContributorName, accepted: int, pending: int, rejected: int) -> None:
    """Adds to a contributor's counts."""
    session.execute(
        update(ContributorRow)
        .where(ContributorRow.datanet == name.datanet, ContributorRow.id == name.contributor)
        .values(
            accepted_count=ContributorRow.accepted_count + accepted,
            pending_count=ContributorRow.pending_count + pending,
            rejected_count=ContributorRow.rejected_count + rejected,
        )
        .execution_options(synchronize_session=False)
    )


def _contributor(row: ContributorRow) -> Contributor:
    return Contributor(
        name=str(ContributorName(row.datanet, row.id)),
        principal=row.principal,
        display_name=row.display_name,
        payout_address=row.payout_address,
        consent_licence=row.consent_licence,
        consent_time=row.consent_time,
        accepted_count=row.accepted_count,
        pending_count=row.pending_count,
        rejected_count=row.rejected_count,
    )
