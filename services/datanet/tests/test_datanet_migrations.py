"""What the first release wrote, read by this one."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from datanet.store.contributors import folded
from datanet.store.tables import ContributorRow
from openledger_testing.first_release import insert_recorded
from servicekit.database import engine, migrate, reading

pytestmark = pytest.mark.slow


def test_a_contributor_of_the_first_release_is_found_by_its_folded_names(database_url: str) -> None:
    database = engine(database_url)
    migrate(database, "datanet", "0001")
    insert_recorded(database, "datanet")
    migrate(database, "datanet")
    with reading(database) as session:
        rows = _contributors(session)
    assert rows
    for row in rows:
        assert row.principal_folded == folded(row.principal.upper() + " ") != ""
        assert row.display_name_folded == folded(row.display_name)


def _contributors(session: Session) -> list[ContributorRow]:
    return list(session.scalars(select(ContributorRow)))
