"""What services' databases held at the first release: recorded from services that ran, and never to be changed."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, MetaData, Table

from openledger_testing.repository import FIRST_RELEASE

SERVICES = {
    "datanet": "datanet.store.tables",
    "trainer": "trainer.store.tables",
    "inference": "inference.store",
    "attribution": "attribution.store",
    "chain_relay": "chain_relay.store.tables",
}
"""The packages, and the module of each that declares its tables."""


def recorded(service: str) -> Any:
    """{"schema": {kind of database: schema}, "rows": {table: [row]}}."""
    return json.loads((FIRST_RELEASE / f"{service}.json").read_text())


def insert_recorded(database: Engine, service: str) -> None:
    """Fills a database that is at revision 0001."""
    rows = recorded(service)["rows"]
    for table in tables_of(database):
        if rows[table.name]:
            with database.begin() as connection:
                decoded = [{name: _decoded(value) for name, value in row.items()} for row in rows[table.name]]
                connection.execute(table.insert(), decoded)


def tables_of(database: Engine) -> list[Table]:
    """As the database has them, those that others refer to first."""
    metadata = MetaData()
    metadata.reflect(database)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _decoded(value: Any) -> Any:
    """What JSON says in words."""
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    if isinstance(value, dict) and set(value) == {"time"}:
        return datetime.fromisoformat(value["time"])
    return value
