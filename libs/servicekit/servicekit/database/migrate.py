"""Runs the Alembic migrations in a service's package. The first process that starts runs them.

An operator migrates back with ``python -m servicekit.database``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, MetaData, text
from sqlalchemy.exc import OperationalError

from servicekit import crash, private
from servicekit.database._bounded import statements_within
from servicekit.deadlines import MIGRATION_S, lock_file
from servicekit.errors import StartupError

# Alembic passes the context to env.py in a module variable, so a process runs one migration at a time.
_ONE_ALEMBIC = threading.Lock()


def migrate(engine: Engine, package: str, revision: str = "head") -> None:
    """Upgrades the database to the newest revision in ``<package>/migrations/versions``, or to the given one.

    All revisions run in one transaction under a lock: several processes may start at once, and a process that dies halfway
    changes nothing.

    Raises:
        StartupError: the package has no migrations, or the database is newer than the program.
    """
    locked(engine, package, lambda connection: run_alembic(connection, package, command.upgrade, revision))


def migrate_back(engine: Engine, package: str, revision: str) -> None:
    """Undoes all revisions after the given one; ``base`` undoes all. Data that only those revisions hold is lost.

    Runs in one transaction, under the same lock as `migrate`.

    Raises:
        StartupError: the database has not passed this revision.
    """
    locked(engine, package, lambda connection: run_alembic(connection, package, command.downgrade, revision))


def schema_differences(engine: Engine, metadata: MetaData) -> list[Any]:
    """Returns Alembic's list of differences between a database and the declared tables; empty when both agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def run_alembic(
    connection: Connection,
    package: str,
    move: Callable[[Config, str], None] = command.upgrade,
    revision: str = "head",
) -> Config:
    """Upgrades or downgrades in the transaction of an open connection. Returns the configuration that env.py used."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder(package)).replace("%", "%%"))
    config.attributes["connection"] = connection
    _check_known(connection, package, config)
    try:
        move(config, revision)
    except CommandError as error:
        raise StartupError(f"database of {package} cannot be migrated: {error}") from error
    return config


def migrations_folder(package: str) -> Path:
    """Returns the folder ``migrations`` of an installed package."""
    file = import_module(package).__file__
    folder = Path(file).parent / "migrations" if file is not None else None
    if folder is None or not (folder / "env.py").is_file():
        raise StartupError(f"package {package} has no migrations/env.py")
    return folder


def _check_known(connection: Connection, package: str, config: Config) -> None:
    """Refuses a database that a newer program has migrated: this program does not know its tables."""
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise StartupError(
            f"the database of {package} is at revision {found}, this program's newest is"
            f" {scripts.get_current_head()}: start the newer program, or migrate the database back with it"
            f" (python -m servicekit.database back {package} URL {scripts.get_current_head()})"
        )


def locked(engine: Engine, package: str, act: Callable[[Connection], object]) -> None:
    """Runs `act` in one transaction under the package's lock.

    The first statement waits for the lock. A stricter isolation level would afterwards still see the state from before the
    wait, and would create every table a second time. (SQLite has one isolation level, and locks when a transaction begins.)
    """
    isolated = (
        engine
        if engine.dialect.name == "sqlite"
        else engine.execution_options(isolation_level="READ COMMITTED")
    )
    try:
        with (
            _ONE_ALEMBIC,
            _in_turn(isolated),
            _to_alter(isolated) as connection,
            crash.step("migration"),
            connection.begin(),
            statements_within(connection, MIGRATION_S),
        ):
            _lock(connection, package)
            before = MigrationContext.configure(connection).get_current_revision()
            act(connection)
            # A start that altered nothing cannot have broken a reference. A row that changed on the disk may have, and must
            # not keep the service down: who reads it names it.
            if MigrationContext.configure(connection).get_current_revision() != before:
                _check_references(connection)
    except OperationalError as error:
        line = " ".join(str(error.orig).split())
        raise StartupError(f"database {engine.url.render_as_string()} of {package}: {line}") from error


@contextmanager
def _in_turn(engine: Engine) -> Iterator[None]:
    """Waits until no other process migrates this SQLite database, for an hour at most. SQLite itself waits only some
    seconds for its lock. The kernel releases this lock when a process dies. PostgreSQL's lock needs no such help."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with private.file(Path(f"{engine.url.database}.migrating")).open("w") as lock:
        try:
            lock_file(lock, MIGRATION_S)
        except TimeoutError as error:
            raise StartupError(str(error)) from None
        yield


@contextmanager
def _to_alter(engine: Engine) -> Iterator[Connection]:
    """Yields a connection that can alter tables.

    SQLite alters a table by copying and dropping it, which foreign keys of other tables would prevent. They are turned off,
    which SQLite allows only outside a transaction.
    """
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            yield connection
            return
        bare = connection.connection.cursor()
        bare.execute("PRAGMA foreign_keys = OFF")
        try:
            yield connection
        finally:
            bare.execute("PRAGMA foreign_keys = ON")
            bare.close()


def _check_references(connection: Connection) -> None:
    """Checks, just before the commit, the foreign keys that SQLite did not check while tables were altered."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise StartupError(
                f"the migration would leave {len(broken)} rows of {broken[0][0]} that refer to nothing in {broken[0][2]}, the one"
                f" with rowid {broken[0][1]} first: repair or delete them, or start the earlier release"
            )


def _lock(connection: Connection, package: str) -> None:
    """Takes an advisory lock until the transaction ends (PostgreSQL). In SQLite the transaction already has the write lock."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"migrate {package}".encode()).digest()[:8], signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
