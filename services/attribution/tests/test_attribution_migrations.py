"""The columns of version and index times are renamed in both directions, on SQLite and on PostgreSQL, with their rows."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from attribution.store import Base
from servicekit.database import engine, migrate
from servicekit.database.migrate import migrate_back, schema_differences
from servicekit.testing.services import DATABASE_KINDS, Databases

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("kind", DATABASE_KINDS)
def test_times_are_renamed_in_both_directions_and_rows_stay(kind: str, databases: Databases) -> None:
    with databases.empty(kind) as url:
        database = engine(url)
        migrate(database, "attribution", "0004")
        with database.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO model_versions (name, version_digest, base_digest, adapter_digest,"  # old name
                    " training_manifest_digest, told) VALUES ('models/m/versions/1', :d, :d, :d, :d, :t)"
                ),
                {"d": DIGEST, "t": "2026-01-31 12:00:00+00:00"},
            )
        migrate(database, "attribution")
        assert schema_differences(database, Base.metadata) == []
        with database.connect() as connection:
            assert connection.execute(text("SELECT published_at FROM model_versions")).scalar() is not None
        migrate_back(database, "attribution", "0004")
        columns = {
            table: {column["name"] for column in inspect(database).get_columns(table)}
            for table in ("model_versions", "indexes")
        }
        assert "told" in columns["model_versions"]  # old name
        assert "wanted" in columns["indexes"]  # old name
        migrate(database, "attribution")
        with database.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM model_versions")).scalar() == 1
        database.dispose()
