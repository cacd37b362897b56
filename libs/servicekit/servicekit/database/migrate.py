"""Alembic migrations that live inside a service's package, run at start by whichever process comes first."""

from __future__ import annotations

import hashlib
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, MetaData, text
from sqlalchemy.exc import OperationalError

from servicekit.errors import StartupError

# Alembic hands env.py its context through a module, so one process runs one migration at a time.
_ONE_ALEMBIC = threading.Lock()


def migrate(engine: Engine, package: str) -> None:
    """Brings the database to the newest revision in ``<package>/migrations/versions``.

    All revisions run in one transaction under a lock, so several processes may start together and one that dies halfway
    leaves nothing behind.

    Raises:
        StartupError: the package has no migrations, or the database is newer than the program.
    """
    # The lock is waited for by the first statement, and a stricter isolation would go on with the state as it was before
    # the wait, and create every table a second time. (SQLite knows only one isolation, and locks when it begins.)
    isolated = (
        engine
        if engine.dialect.name == "sqlite"
        else engine.execution_options(isolation_level="READ COMMITTED")
    )
    try:
        with _ONE_ALEMBIC, isolated.connect() as connection, connection.begin():
            _lock(connection, package)
            run_alembic(connection, package)
    except OperationalError as error:
        line = " ".join(str(error.orig).split())
        raise StartupError(f"database {engine.url.render_as_string()} of {package}: {line}") from error


def schema_differences(engine: Engine, metadata: MetaData) -> list[Any]:
    """What a database lacks of the declared tables, as Alembic tells it; empty when migrations and code agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def run_alembic(connection: Connection, package: str) -> Config:
    """Upgrades over an open connection, in its transaction; returns the configuration its env.py has seen."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder(package)).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
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


def _lock(connection: Connection, package: str) -> None:
    """PostgreSQL: an advisory lock until the transaction ends. SQLite: the transaction has the write lock already."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"migrate {package}".encode()).digest()[:8], signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
