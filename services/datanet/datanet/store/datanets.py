"""Datanets in the database. Every function works in its caller's transaction."""

from __future__ import annotations

import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.definition import Datanet, QualityPolicy, RecordSchema
from datanet.store.tables import DatanetRow
from identity.names import DatanetName
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, resource

DATANETS = Listing(
    fields={
        "name": Field(DatanetRow.id, resource(DatanetName, lambda name: name.datanet)),
        "display_name": Field(DatanetRow.display_name, TEXT),
        "description": Field(DatanetRow.description, TEXT, sortable=False),
        "licence": Field(DatanetRow.licence, TEXT),
        "owner": Field(DatanetRow.owner, TEXT),
        "create_time": Field(DatanetRow.create_time, TIME),
    },
    key=[DatanetRow.id],
)


def get(session: Session, name: DatanetName) -> Datanet | None:
    """Returns the Datanet of this name."""
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


def page(session: Session, query: Query) -> Page[Datanet]:
    """Returns a page of Datanets, by id unless the query says otherwise."""
    page = DATANETS.page(session, select(DatanetRow), query, bytes_of=_bytes)
    return Page([_datanet(row) for row in page.items], page.next_page_token, page.total_size)


def _bytes(row: DatanetRow) -> int:
    """Size of a Datanet in a response: its texts, and a bound for its policy."""
    texts = row.id, row.owner, row.display_name, row.description, row.licence, row.treasury_address
    schema = json.dumps(row.schema, ensure_ascii=False), json.dumps(row.policy, ensure_ascii=False)
    return len("".join((*texts, *schema)).encode()) + 500


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
