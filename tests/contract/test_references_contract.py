"""Every digest in a service's tables is published as a reference, or known to name no stored object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table

from openledger_testing.first_release import SERVICES, insert_recorded, tables_of
from servicekit.database import engine, migrate, reading
from servicekit.objects.references import References

NO_OBJECTS = {
    "datanet": {
        "records.digest",
        "snapshots.root",
        "contributors.principal_folded",  # digests of names
        "contributors.display_name_folded",
    },
    "trainer": {
        "snapshots.root",
        "training_runs.snapshots",  # names roots beside objects
        "training_runs.assessment",
        "evaluations.suites",
        "evaluations.suites_digest",
        "model_versions.digest",
        "model_versions.history",  # names reports, which their evaluations name too
        "promotions.entry",  # likewise, and the entry before
        "promotions.hash",
        "request_ids.fingerprint",
    },
    "inference": {"model_versions.version_digest"},
    "attribution": {
        "model_versions.version_digest",
        "indexes.version_digest",
        "indexes.error",
        "answers.version_digest",
        "answers.digest",  # of the record, which is in the same row
        "answers.record",
        "answers.event",
    },
    "chain_relay": {
        "scored_answer.model_digest",
        "scored_answer.record_digest",
        "registered_dataset.root",
        "registered_model.version_digest",
    },
}
"""Columns whose digests name something else: records, roots, versions, requests."""
CONFIGURED = "sha256:" + "0" * 64
"""The base model in the settings of inference."""
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


def references(service: str, folder: Path) -> References:
    found: Any = import_module(f"{service}.references").references
    if service == "trainer":
        from trainer.base_models import BaseModels

        found = found(BaseModels(folder, ["tiny"]), folder)
    elif service == "inference":
        found = found(CONFIGURED)
    made: References = found
    return made


def digests_of(values: Iterable[Any]) -> set[str]:
    found = set()
    for value in values:
        data = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
        found |= {each.decode() for each in _DIGEST.findall(data)}
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_digest_in_the_tables_is_a_reference_or_names_no_object(
    service: str, database_url: str, tmp_path: Path
) -> None:
    """On the rows that the first release recorded: real ones, of every table that names an object."""
    database = engine(database_url)
    migrate(database, service, "0001")
    insert_recorded(database, service)
    migrate(database, service)
    with reading(database) as session:
        published = set(references(service, tmp_path)(session))
    assert published - {""}
    unknown = {}
    for table in tables_of(database):
        for name, found in columns_of(database, table).items():
            if table.name not in ("outbox", "inbox") and f"{table.name}.{name}" not in NO_OBJECTS[service]:
                unknown[f"{table.name}.{name}"] = found - published
    assert {name: found for name, found in unknown.items() if found} == {}
    database.dispose()


@pytest.mark.parametrize("service", SERVICES)
def test_every_reference_names_an_object(service: str, database_url: str, tmp_path: Path) -> None:
    """Else garbage collection would say that an object is missing which never was one: a Merkle root, for example."""
    database = engine(database_url)
    migrate(database, service, "0001")
    insert_recorded(database, service)
    migrate(database, service)
    with reading(database) as session:
        published = set(references(service, tmp_path)(session))
    objects = {"", CONFIGURED}
    for table in tables_of(database):
        for name, found in columns_of(database, table).items():
            if f"{table.name}.{name}" not in NO_OBJECTS[service]:
                objects |= found
    assert published - objects == set()
    database.dispose()


def columns_of(database: Any, table: Table) -> dict[str, set[str]]:
    with database.begin() as connection:
        rows = [dict(row) for row in connection.execute(table.select()).mappings()]
    return {column.name: digests_of(row[column.name] for row in rows) for column in table.columns}
