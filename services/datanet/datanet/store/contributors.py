"""Contributors in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from datanet.entities import Contributor
from datanet.store.tables import ContributorRow
from identity.digest import sha256_bytes
from identity.folding import name_form, name_forms
from identity.names import ContributorName, DatanetName
from servicekit.lists import INTEGER, TEXT, TIME, Field, Listing, Page, Query, resource

CONTRIBUTORS = Listing(
    fields={
        "name": Field(ContributorRow.id, resource(ContributorName, lambda name: name.contributor)),
        "principal": Field(ContributorRow.principal, TEXT),
        "display_name": Field(ContributorRow.display_name, TEXT),
        "payout_address": Field(ContributorRow.payout_address, TEXT),
        "consent_licence": Field(ContributorRow.consent_licence, TEXT),
        "consent_time": Field(ContributorRow.consent_time, TIME),
        "accepted_count": Field(ContributorRow.accepted_count, INTEGER),
        "pending_count": Field(ContributorRow.pending_count, INTEGER),
        "rejected_count": Field(ContributorRow.rejected_count, INTEGER),
    },
    key=[ContributorRow.id],
)


def get(session: Session, name: ContributorName) -> Contributor | None:
    """Returns the contributor of this name."""
    row = session.get(ContributorRow, (name.datanet, name.contributor))
    return _contributor(row) if row else None


def of_principal(session: Session, name: DatanetName, principal: str) -> Contributor | None:
    """Returns the contributor of a Datanet with this principal."""
    query = select(ContributorRow).where(
        ContributorRow.datanet == name.datanet, ContributorRow.principal == principal
    )
    row = session.scalars(query).one_or_none()
    return _contributor(row) if row else None


def folded(name: str) -> str:
    """Returns the digest of a name's folded form, of bounded length; "" for no name."""
    return sha256_bytes(name_form(name).encode()) if name else ""


def like(session: Session, name: DatanetName, described: Contributor) -> tuple[str, Contributor] | None:
    """Returns what a contributor of the Datanet has in common with the described one, and that contributor.

    That is a principal or a display name that folds alike (`identity.folding`), or a payout address.
    """
    for what, column, values in (
        (
            "whose principal counts as the same person",
            ContributorRow.principal_folded,
            _forms(described.principal),
        ),
        (
            "with a display name that looks the same",
            ContributorRow.display_name_folded,
            _forms(described.display_name),
        ),
        ("with this payout address", ContributorRow.payout_address, {described.payout_address}),
    ):
        query = select(ContributorRow).where(
            ContributorRow.datanet == name.datanet, column.in_(values - {""})
        )
        row = session.scalars(query.order_by(ContributorRow.id).limit(1)).one_or_none()
        if row is not None:
            return what, _contributor(row)
    return None


def _forms(name: str) -> set[str]:
    return {sha256_bytes(form.encode()) for form in name_forms(name)} if name else set()


def add(session: Session, made: Contributor) -> None:
    """Inserts a contributor."""
    name = ContributorName.parse(made.name)
    session.add(
        ContributorRow(
            datanet=name.datanet,
            id=name.contributor,
            principal=made.principal,
            principal_folded=folded(made.principal),
            display_name=made.display_name,
            display_name_folded=folded(made.display_name),
            payout_address=made.payout_address,
            consent_licence=made.consent_licence,
            consent_time=made.consent_time,
            accepted_count=0,
            pending_count=0,
            rejected_count=0,
        )
    )
    session.flush()


def of_datanet(session: Session, name: DatanetName) -> list[Contributor]:
    """Returns all contributors of a Datanet by id."""
    rows = select(ContributorRow).where(ContributorRow.datanet == name.datanet).order_by(ContributorRow.id)
    return [_contributor(row) for row in session.scalars(rows)]


def page(session: Session, name: DatanetName, query: Query) -> Page[Contributor]:
    """Returns a page of a Datanet's contributors, by id unless the query says otherwise."""
    rows = select(ContributorRow).where(ContributorRow.datanet == name.datanet)
    page = CONTRIBUTORS.page(session, rows, query, bytes_of=_bytes)
    return Page([_contributor(row) for row in page.items], page.next_page_token, page.total_size)


def _bytes(row: ContributorRow) -> int:
    """Size of a contributor in a response: its texts, and a bound for its times and counts."""
    texts = row.datanet, row.id, row.principal, row.display_name, row.payout_address, row.consent_licence
    return len("".join(texts).encode()) + 200


def count(session: Session, name: ContributorName, *, accepted: int, pending: int, rejected: int) -> None:
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
