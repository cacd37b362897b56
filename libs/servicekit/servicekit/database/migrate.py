"""Alembic migrations that live inside a service's package, run at start by whichever process comes first.

The way back is an operator's: ``python -m servicekit.database``.
"""

from __future__ import annotations

import fcntl
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

from servicekit import crash
from servicekit.errors import StartupError

# Alembic hands env.py its context through a module, so one process runs one migration at a time.
_ONE_ALEMBIC = threading.Lock()


def migrate(engine: Engine, package: str, revision: str = "head") -> None:
    """Brings the database forward to the newest revision in ``<package>/migrations/versions``, or to the one that is named.

    All revisions run in one transaction under a lock, so several processes may start together and one that dies halfway
    leaves nothing behind.

    Raises:
        StartupError: the package has no migrations, or the database is newer than the program.
    """
    _locked(engine, package, lambda connection: run_alembic(connection, package, command.upgrade, revision))


def migrate_back(engine: Engine, package: str, revision: str) -> None:
    """Undoes all revisions after one; ``base`` undoes all. What only they hold is lost. One transaction under the same lock.

    Raises:
        StartupError: there is no such revision behind the database's.
    """
    _locked(engine, package, lambda connection: run_alembic(connection, package, command.downgrade, revision))


def schema_differences(engine: Engine, metadata: MetaData) -> list[Any]:
    """What a database lacks of the declared tables, as Alembic tells it; empty when migrations and code agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def run_alembic(
    connection: Connection,
    package: str,
    move: Callable[[Config, str], None] = command.upgrade,
    revision: str = "head",
) -> Config:
    """Moves over an open connection, in its transaction; returns the configuration its env.py has seen."""
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
    """The folder ``migrations`` of an installed package."""
    file = import_module(package).__file__
    folder = Path(file).parent / "migrations" if file is not None else None
    if folder is None or not (folder / "env.py").is_file():
        raise StartupError(f"package {package} has no migrations/env.py")
    return folder


def _check_known(connection: Connection, package: str, config: Config) -> None:
    """Refuses a database that a newer program has migrated: this one would not know what its tables mean."""
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise StartupError(
            f"the database of {package} is at revision {found}, this program knows none after"
            f" {scripts.get_current_head()}: start the newer program, or let it take the database back"
            f" (python -m servicekit.database back {package} URL {scripts.get_current_head()})"
        )


def _locked(engine: Engine, package: str, act: Callable[[Connection], object]) -> None:
    """Runs in one transaction under the package's lock.

    The lock is waited for by the first statement, and a stricter isolation would go on with the state as it was before the
    wait, and create every table a second time. (SQLite knows only one isolation, and locks when it begins.)
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
        ):
            _lock(connection, package)
            act(connection)
            _check_references(connection)
    except OperationalError as error:
        line = " ".join(str(error.orig).split())
        raise StartupError(f"database {engine.url.render_as_string()} of {package}: {line}") from error


@contextmanager
def _in_turn(engine: Engine) -> Iterator[None]:
    """SQLite waits for its lock for some seconds only, and another process's migration may take longer: that is waited for
    here, as PostgreSQL's lock is, however long it takes. The kernel lets go of it for a process that dies."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with Path(f"{engine.url.database}.migrating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _to_alter(engine: Engine) -> Iterator[Connection]:
    """A connection by which tables can be altered.

    SQLite alters most of a table by copying and dropping it, which foreign keys of other tables would refuse; it hears of
    that only outside a transaction.
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
    """What SQLite did not look after while it altered, as the last act before the commit."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise StartupError(
                f"the migration would leave rows of {broken[0][0]} that refer to nothing in {broken[0][2]}"
            )


def _lock(connection: Connection, package: str) -> None:
    """PostgreSQL: an advisory lock until the transaction ends. SQLite: the transaction has the write lock already."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"migrate {package}".encode()).digest()[:8], signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
