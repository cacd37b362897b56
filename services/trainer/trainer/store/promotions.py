"""The promotion history in the database: rows are added and read, never changed."""

from __future__ import annotations

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from identity.names import ModelVersionName, PromotionName, PromotionOverrideName
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, choices, resource
from trainer.entities import Promotion, PromotionKind
from trainer.promotion_history import entry_hash, from_bytes, to_bytes
from trainer.store.tables import PromotionRow


def add(session: Session, promotion: Promotion) -> Promotion:
    """Inserts the next entry of a model's history."""
    entry = to_bytes(promotion)
    session.add(
        PromotionRow(
            model=promotion.model,
            number=promotion.number,
            entry=entry,
            hash=entry_hash(promotion),
            version=promotion.version.version,
            kind=promotion.kind,
            principal=promotion.principal,
            report_digest=promotion.report_digest,
            policy_digest=promotion.policy_digest,
            override=promotion.override,
            promote_time=promotion.time,
        )
    )
    session.flush()
    return from_bytes(entry)


def history(session: Session, model: str) -> list[Promotion]:
    """Returns all entries of a model, in order."""
    query = select(PromotionRow.entry).where(PromotionRow.model == model).order_by(PromotionRow.number)
    return [from_bytes(entry) for entry in session.scalars(query)]


def newest(session: Session, model: str) -> Promotion | None:
    """Returns the last entry of a model: what it serves."""
    query = select(PromotionRow.entry).where(PromotionRow.model == model)
    entry = session.scalar(query.order_by(PromotionRow.number.desc()).limit(1))
    return from_bytes(entry) if entry is not None else None


def get(session: Session, name: PromotionName) -> Promotion | None:
    row = session.get(PromotionRow, (name.model, name.promotion))
    return from_bytes(row.entry) if row else None


LISTING = Listing(
    fields={
        "name": Field(
            "models/" + PromotionRow.model + "/promotions/" + cast(PromotionRow.number, String),
            resource(PromotionName),
            sortable=False,
        ),
        "hash": Field(PromotionRow.hash, TEXT, sortable=False),
        "model_version": Field(
            "models/" + PromotionRow.model + "/versions/" + cast(PromotionRow.version, String),
            resource(ModelVersionName),
            sortable=False,
        ),
        "kind": Field(PromotionRow.kind, choices({kind.name: kind.value for kind in PromotionKind})),
        "principal": Field(PromotionRow.principal, TEXT),
        "report_digest": Field(PromotionRow.report_digest, TEXT, sortable=False),
        "override": Field(PromotionRow.override, resource(PromotionOverrideName, lambda name: name.override)),
        "promote_time": Field(PromotionRow.promote_time, TIME),
    },
    key=[PromotionRow.number.desc()],
)
"""What a promotion history is filtered and sorted by; newest first."""


def page(session: Session, model: str, query: Query) -> Page[Promotion]:
    """Returns a page of a model's history. Raises InvalidArgument."""
    statement = select(PromotionRow).where(PromotionRow.model == model)
    found = LISTING.page(session, statement, query, bytes_of=lambda row: 2 * len(row.entry) + 500)
    return Page([from_bytes(row.entry) for row in found.items], found.next_page_token, found.total_size)
