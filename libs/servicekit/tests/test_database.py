"""The same promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, ForeignKey, MetaData, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from servicekit.database import (
    UtcDateTime,
    engine,
    is_conflict,
    is_outage,
    migrate,
    migrate_back,
    new_metadata,
    reading,
    run_in_transaction,
    schema_differences,
    transaction,
    ulid,
)
from servicekit.database.migrations_env import write_revision
from servicekit.errors import Aborted, StartupError, Unavailable
from servicekit.testing.services import Databases
from servicekit.testing.waiting import LONGEST_S


class Base(DeclarativeBase):
    metadata = new_metadata()


class Account(Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    opened: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))


@pytest.fixture
def empty(database_url: str) -> Iterator[Engine]:
    made = engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def db(empty: Engine) -> Engine:
    Base.metadata.create_all(empty)
    return empty


def test_a_transaction_that_raises_leaves_nothing(db: Engine) -> None:
    def add_and_fail() -> None:
        with transaction(db) as session:
            session.add(Account(name="ann", amount=1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    with reading(db) as session:
        assert session.get(Account, "ann") is None


def test_concurrent_increments_are_all_counted(db: Engine) -> None:
    with transaction(db) as session:
        session.add(Account(name="ann", amount=0))

    def increment(_: int) -> None:
        def add_one(session: Session) -> None:
            account = session.get_one(Account, "ann")
            account.amount += 1

        run_in_transaction(db, add_one, attempts=50)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, range(40)))
    with reading(db) as session:
        assert session.get_one(Account, "ann").amount == 40


def test_two_that_each_read_what_the_other_writes_cannot_both_win(db: Engine) -> None:
    """Write skew: under a weaker isolation both would see a total of 2 and take one."""
    with transaction(db) as session:
        session.add_all([Account(name="ann", amount=1), Account(name="bob", amount=1)])
    both_have_read = threading.Barrier(2)

    def take_if_one_remains(name: str) -> str:
        first = True

        def take(session: Session) -> str:
            nonlocal first
            total = sum(session.scalars(select(Account.amount)))
            if (
                first and db.dialect.name == "postgresql"
            ):  # SQLite lets the second read only after the first's commit
                first = False
                both_have_read.wait(LONGEST_S)
            if total < 2:
                return "refused"
            session.get_one(Account, name).amount -= 1
            return "taken"

        return run_in_transaction(db, take)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take_if_one_remains, ["ann", "bob"])) == ["refused", "taken"]


def test_a_lost_race_is_aborted_and_may_be_retried(db: Engine, database_url: str) -> None:
    if db.dialect.name == "sqlite":
        impatient = engine(database_url)
        with transaction(db) as session, impatient.connect() as waiting:
            session.execute(text("SELECT 1"))
            waiting.connection.cursor().execute("PRAGMA busy_timeout = 0")
            with pytest.raises(Exception) as lost:
                waiting.exec_driver_sql("SELECT 1")
        assert is_conflict(lost.value)
        impatient.dispose()
        return
    with transaction(db) as session:
        session.add(Account(name="ann", amount=0))

    def lose() -> None:
        with transaction(db) as late:
            late.get_one(Account, "ann").amount += 1
            with transaction(db) as early:
                early.get_one(Account, "ann").amount += 1

    with pytest.raises(Aborted) as aborted:
        lose()
    assert aborted.value.retry_after_s is not None


def test_a_reader_does_not_wait_for_a_writer_and_sees_one_state(db: Engine) -> None:
    with transaction(db) as writer:
        writer.add(Account(name="ann", amount=1))
        writer.flush()
        with reading(db) as reader:
            assert reader.get(Account, "ann") is None


def test_foreign_keys_hold(db: Engine) -> None:
    with pytest.raises(IntegrityError), transaction(db) as session:
        session.add(Note(id="1", account="missing"))


def test_a_moment_comes_back_aware_in_utc(db: Engine) -> None:
    tokyo = datetime(2026, 11, 24, 9, 30, 15, 123456, tzinfo=timezone(timedelta(hours=9)))
    with transaction(db) as session:
        session.add(Account(name="ann", amount=0, opened=tokyo))
    with reading(db) as session:
        opened = session.get_one(Account, "ann").opened
    assert opened == tokyo
    assert opened is not None
    assert opened.tzinfo is UTC
    with pytest.raises(StatementError, match="needs its zone"), transaction(db) as session:
        session.add(Account(name="bob", amount=0, opened=datetime(2026, 11, 24)))


def test_new_ids_differ_and_have_26_characters() -> None:
    ids = {ulid() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(i) for i in ids} == {26}


ENV = """from servicekit.database.migrations_env import run_migrations
from {package}.store import Base
run_migrations(Base.metadata)
"""
STORE = """from __future__ import annotations
from datetime import datetime
from servicekit.database import UtcDateTime, new_metadata
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    metadata = new_metadata()

class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[str] = mapped_column(primary_key=True)
    made: Mapped[datetime] = mapped_column(UtcDateTime)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service's package with tables, and no revision yet."""
    name = f"library_{uuid4().hex[:8]}"
    root = tmp_path / "site" / name
    (root / "migrations" / "versions").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "store.py").write_text(STORE)
    (root / "migrations" / "env.py").write_text(ENV.format(package=name))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return name


def declared(package: str) -> MetaData:
    from importlib import import_module

    metadata = import_module(f"{package}.store").Base.metadata
    assert isinstance(metadata, MetaData)
    return metadata


def test_the_first_migration_is_written_from_the_tables_and_makes_them(package: str, empty: Engine) -> None:
    written = write_revision(package, "Shelves")
    assert written is not None
    assert written.name == "0001_shelves.py"
    assert "servicekit" not in written.read_text()
    migrate(empty, package)
    migrate_back(empty, package, "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    migrate(empty, package)
    assert {"shelves", "outbox", "inbox", "database_identity"} <= set(inspect(empty).get_table_names())
    assert schema_differences(empty, declared(package)) == []
    assert write_revision(package, "nothing") is None


def test_migrating_twice_changes_nothing(package: str, empty: Engine) -> None:
    write_revision(package, "shelves")
    migrate(empty, package)
    migrate(empty, package)
    assert schema_differences(empty, declared(package)) == []


def test_a_revision_that_fails_leaves_nothing_of_itself_or_its_predecessors(
    package: str, empty: Engine
) -> None:
    first = write_revision(package, "shelves")
    assert first is not None
    second = first.with_name("0002_broken.py")
    broken = (
        first.read_text().replace('revision = "0001"', 'revision = "0002"').replace("= None", '= "0001"', 1)
    )
    second.write_text(broken.split("def upgrade")[0] + "def upgrade() -> None:\n    raise RuntimeError\n")
    with pytest.raises(RuntimeError):
        migrate(empty, package)
    assert inspect(empty).get_table_names() == []


def test_several_processes_may_start_together(
    package: str, empty: Engine, database_url: str, tmp_path: Path
) -> None:
    write_revision(package, "shelves")
    program = (
        f"from servicekit.database import engine, migrate; migrate(engine({database_url!r}), {package!r})"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [process.wait(LONGEST_S) for process in started] == [0, 0, 0]
    assert schema_differences(empty, declared(package)) == []


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="only sqlite and postgresql"):
        engine("mysql://u:secret@h/d")
    with pytest.raises(StartupError, match="must be a file"):
        engine("sqlite://")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot make the folder"):
        engine(f"sqlite:///{tmp_path}/file/x.db")


def test_a_database_that_does_not_answer_is_one_line_without_its_password(package: str) -> None:
    with pytest.raises(StartupError) as refused:
        migrate(engine("postgresql://u:secret@127.0.0.1:1/d"), package)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.fixture
def postgresql(databases: Databases) -> Iterator[Engine]:
    with databases.empty("postgresql") as url:
        made = engine(url)
        yield made
        made.dispose()


def raised(db: Engine, sql: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as error, db.begin() as connection:
        connection.execute(text(sql))
    return error.value


@pytest.mark.server
@pytest.mark.parametrize(
    ("state", "outage"),
    [
        ("53300", True),
        ("57P01", True),
        ("57P03", True),
        ("08006", True),
        ("25006", True),
        ("40001", False),
        ("22012", False),
    ],
)
def test_an_outage_differs_from_a_conflict_and_a_defect_in_its_sql_state(
    postgresql: Engine, state: str, outage: bool
) -> None:
    error = raised(postgresql, f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")
    assert (is_outage(error), is_conflict(error)) == (outage, state == "40001")


@pytest.mark.server
def test_a_server_that_became_a_standby_is_an_outage_and_its_connections_are_left(postgresql: Engine) -> None:
    with postgresql.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
        former = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with pytest.raises(Unavailable), transaction(postgresql) as session:
        session.execute(text("SET TRANSACTION READ ONLY; INSERT INTO t VALUES (1)"))
    with postgresql.begin() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != former


def test_a_write_while_reading_is_a_defect_and_not_an_outage(postgresql: Engine) -> None:
    with postgresql.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    with pytest.raises(DBAPIError), reading(postgresql) as session:
        session.execute(text("INSERT INTO t VALUES (1)"))


def test_sqlite_is_never_down(tmp_path: Path) -> None:
    db = engine(f"sqlite:///{tmp_path}/x.db")
    assert not is_outage(raised(db, "SELECT * FROM nothing"))


BACKUP = """
import sqlite3, sys
source, copy = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(copy)
copy.close()
source.close()
"""


def test_a_backup_by_another_process_takes_nothing_from_a_running_one(tmp_path: Path) -> None:
    """A new connection must not drop the locks of those before it: another process would delete the write-ahead log."""
    file, copy = tmp_path / "a.db", tmp_path / "copy.db"
    running = engine(f"sqlite:///{file}")
    with running.begin() as held:
        held.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
    with running.connect() as held, running.connect().execution_options(sqlite_begin="DEFERRED") as second:
        held.execution_options(sqlite_begin="DEFERRED").execute(text("SELECT count(*) FROM things"))
        second.execute(text("SELECT count(*) FROM things"))
    log = file.with_name("a.db-wal").stat().st_ino
    subprocess.run([sys.executable, "-c", BACKUP, str(file), str(copy)], check=True, timeout=LONGEST_S)
    assert file.with_name("a.db-wal").stat().st_ino == log
    with running.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES (1)"))
    running.dispose()
    copied = engine(f"sqlite:///{file}")
    with copied.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM things")) == 1
    copied.dispose()
