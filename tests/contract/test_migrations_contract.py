"""What migrations promise, for every service on both kinds of database."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, Table, inspect, select, text

from openledger_testing.first_release import SERVICES, insert_recorded, recorded, tables_of
from servicekit.database import engine as open_engine
from servicekit.database import migrate, migrate_back, schema_differences
from servicekit.database.migrate import migrations_folder
from servicekit.errors import StartupError
from servicekit.testing.services import DATABASE_KINDS, Databases

pytestmark = pytest.mark.slow

MOVED = {"requests": "request_ids", "request": "request_ids"}
"""Tables whose rows are in another one since."""
RENAMED: dict[tuple[str, str], dict[str, str]] = {
    ("inference", "model_versions"): {"told": "event_time"},  # old name
    ("attribution", "model_versions"): {"told": "published_at"},  # old name
    ("attribution", "indexes"): {"wanted": "requested_at"},  # old name
}
"""New names of columns, by service and table of the first release."""
DROPPED = {
    ("datanet", "datanets"): {"request_id"},
    ("datanet", "contributors"): {"request_id"},
    ("datanet", "snapshots"): {"request_id"},
    ("chain_relay", "request"): {"rpc", "made", "time"},
}
"""Columns that a revision dropped knowingly: request ids are kept for a stated time, in one table."""
REWRITTEN = {
    ("trainer", "training_runs"): {"spec", "origins", "assessment"},
    ("datanet", "records"): {"content"},  # of refused records, which keep no text
}
"""Columns whose content a revision gave another form; the service's own tests read it."""


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


def declared(service: str) -> MetaData:
    metadata = import_module(SERVICES[service]).Base.metadata
    assert isinstance(metadata, MetaData)
    return metadata


def schema_of(database: Engine) -> dict[str, Any]:
    """All that a database says about its tables, in an order of its own."""
    inspector = inspect(database)
    return {
        table: {
            "columns": {
                column["name"]: [
                    str(column["type"].compile(database.dialect)),
                    column["nullable"],
                    bool(column.get("autoincrement")),
                    # PostgreSQL names a sequence by its table: the same each time
                    str(column["default"]),
                ]
                for column in inspector.get_columns(table)
            },
            "primary key": _said(inspector.get_pk_constraint(table)),
            "foreign keys": sorted(map(_said, inspector.get_foreign_keys(table))),
            "unique": sorted(map(_said, inspector.get_unique_constraints(table))),
            "checks": sorted(map(_said, inspector.get_check_constraints(table))),
            "indexes": sorted(map(_said, inspector.get_indexes(table))),
        }
        for table in sorted(inspector.get_table_names())
        if table != "alembic_version"
    }


def _said(part: Any) -> str:
    return json.dumps(part, sort_keys=True, default=str)


def rows_of(database: Engine, table: Table) -> list[dict[str, Any]]:
    with database.begin() as connection:
        found = [dict(row) for row in connection.execute(select(table)).mappings()]
    encoded = [{name: _as_json(value) for name, value in row.items()} for row in found]
    return sorted(encoded, key=lambda row: json.dumps(row, sort_keys=True))


def all_rows(database: Engine) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows_of(database, table) for table in tables_of(database)}


def _only(columns: set[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with these columns only, in an order of their own."""
    kept = [{name: value for name, value in row.items() if name in columns} for row in rows]
    return sorted(kept, key=lambda row: json.dumps(row, sort_keys=True))


def revisions(service: str) -> list[str]:
    """From the first to the newest."""
    return sorted(path.name[:4] for path in (migrations_folder(service) / "versions").glob("0*.py"))


def _as_json(value: Any) -> Any:
    """A value as JSON says it, the same from both kinds of database."""
    if isinstance(value, bytes | memoryview):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return {"time": moment.isoformat()}
    return value


def test_forward_back_and_forward_again_leave_the_same_schema(service: str, database: Engine) -> None:
    migrate(database, service)
    there = schema_of(database)
    assert len(there) > 3
    migrate_back(database, service, "base")
    assert schema_of(database) == {}
    migrate(database, service)
    assert schema_of(database) == there


def test_the_newest_revision_makes_what_the_code_declares(service: str, database: Engine) -> None:
    migrate(database, service)
    assert schema_differences(database, declared(service)) == []
    migrate_back(database, service, "0001")
    assert schema_differences(database, declared(service)) != []


def test_the_first_releases_revision_is_not_changed_afterwards(service: str, database: Engine) -> None:
    migrate(database, service, "0001")
    assert schema_of(database) == recorded(service)["schema"][database.dialect.name]


def test_every_step_back_leaves_the_schema_of_the_way_there(service: str, database: Engine) -> None:
    there = {}
    for revision in revisions(service):
        migrate(database, service, revision)
        there[revision] = schema_of(database)
    for revision in reversed(revisions(service)):
        migrate_back(database, service, revision)
        assert schema_of(database) == there[revision], revision


def test_what_the_first_release_wrote_is_there_after_every_migration(service: str, database: Engine) -> None:
    before = recorded(service)["rows"]
    assert sum(map(len, before.values())) > 3
    migrate(database, service, "0001")
    insert_recorded(database, service)
    migrate(database, service)
    after = all_rows(database)
    for table_name, first in before.items():
        names = RENAMED.get((service, table_name), {})
        rows = [{names.get(name, name): value for name, value in row.items()} for row in first]
        found = after[MOVED.get(table_name, table_name)]
        kept = set(rows[0]) & set(found[0]) if rows else set()
        kept -= REWRITTEN.get((service, table_name), set())
        assert _only(kept, found) == _only(kept, rows), table_name
        changed = DROPPED.get((service, table_name), set()) | REWRITTEN.get((service, table_name), set())
        assert set(rows[0] if rows else ()) - kept <= changed
    migrate_back(database, service, "0001")
    assert {name: len(rows) for name, rows in all_rows(database).items()} == {
        name: len(rows) for name, rows in before.items()
    }


@pytest.mark.parametrize("kind", DATABASE_KINDS)
def test_processes_that_start_together_migrate_once(kind: str, databases: Databases) -> None:
    """Two processes, each for every service, so that they meet at five databases."""
    with ExitStack() as stack:
        urls = {service: stack.enter_context(databases.empty(kind)) for service in SERVICES}
        program = (
            "from servicekit.database import engine, migrate\n"
            f"for service, url in {urls!r}.items(): migrate(engine(url), service)"
        )
        started = [
            subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=120)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0], said
        for service, url in urls.items():
            database = open_engine(url)
            assert schema_differences(database, declared(service)) == []
            with database.begin() as connection:
                assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
            database.dispose()


def test_a_migration_that_takes_longer_than_sqlite_waits_is_waited_for(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("servicekit.database.engine"), "_BUSY_TIMEOUT_MS", 50)
    module = import_module("servicekit.database.migrate")
    inside, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        inside.set()
        assert go_on.wait(60)

    with databases.empty("sqlite") as url, ThreadPoolExecutor() as pool:
        engines = [open_engine(url) for _ in range(2)]
        monkeypatch.setattr(module, "_check_references", slow)
        monkeypatch.setattr(module, "_ONE_ALEMBIC", nullcontext())  # as two processes, each with its own
        first = pool.submit(migrate, engines[0], "inference")
        assert inside.wait(60)
        monkeypatch.setattr(module, "run_alembic", lambda *_: None)
        second = pool.submit(migrate, engines[1], "inference")
        with pytest.raises(TimeoutError):
            second.result(timeout=1)  # twenty times what SQLite would have waited
        go_on.set()
        first.result(60)
        second.result(60)
        for engine in engines:
            engine.dispose()


def test_a_database_that_is_newer_than_the_program_is_refused_in_one_line(
    service: str, database: Engine
) -> None:
    migrate(database, service)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(StartupError, match=rf"database of {service} is at revision 0999") as refused:
        migrate(database, service)
    assert "\n" not in str(refused.value)
    assert "start the newer program" in str(refused.value)


def test_an_operator_takes_a_database_back_by_a_command(database: Engine, database_url: str) -> None:
    migrate(database, "inference")
    command = [sys.executable, "-m", "servicekit.database", "back", "inference", database_url]
    done = subprocess.run([*command, "0001"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "database_identity" not in inspect(database).get_table_names()
    wrong = subprocess.run([*command, "0999"], capture_output=True, text=True, timeout=120, check=False)
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1
    assert "0999" in wrong.stderr
