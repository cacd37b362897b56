"""Datanets in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.definition import Datanet, QualityPolicy, RecordSchema
from datanet.store.tables import DatanetRow
from identity.names import DatanetName


def get(session: Session, name: DatanetName) -> Datanet | None:
    """The Datanet of this name."""
    row = session.get(DatanetRow, name.datanet)
    return _datanet(row) if row else None


def add(session: Session, made: Datanet) -> None:
    """Inserts a Datanet; its time must be set."""
    session.add(
        DatanetRow(
            id=DatanetName.parse(made.name).datanet,
            owner=made.owner,
            display_name=made.display_name,
            description=made.description,
            licence=made.licence,
            schema=made.schema.to_json(),
            policy=made.policy.to_json(),
            treasury_address=made.treasury_address,
            create_time=made.create_time,
        )
    )
    session.flush()


def page(session: Session, after: str, limit: int) -> list[Datanet]:
    """Datanets by id, beyond `after`."""
    query = select(DatanetRow).where(DatanetRow.id > after).order_by(DatanetRow.id).limit(limit)
    return [_datanet(row) for row in session.scalars(query)]


def _datanet(row: DatanetRow) -> Datanet:
    return Datanet(
        name=str(DatanetName(row.id)),
        owner=row.owner,
        licence=row.licence,
        schema=RecordSchema.from_json(row.schema),
        policy=QualityPolicy.from_json(row.policy),
        display_name=row.display_name,
        description=row.description,
        treasury_address=row.treasury_address,
        create_time=row.create_time,
    )
