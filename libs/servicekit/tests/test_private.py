"""What the disk shows to other users: nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from openledger_testing.repository import ROOT
from servicekit import private
from servicekit.auth import DevelopmentIssuer
from servicekit.database import engine
from servicekit.eventlog.base import OutRecord, Topic
from servicekit.eventlog.embedded import EmbeddedEventLog
from servicekit.objects import ObjectStore
from servicekit.wal import Wal


@pytest.fixture(autouse=True)
def careless_umask() -> Iterator[None]:
    """The modes that are tested are those of the code, not those of a careful user's shell."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_every_part_makes_files_for_its_owner_only(tmp_path: Path) -> None:
    state = private.folder(tmp_path / "state")
    DevelopmentIssuer(state).ensure_keys()
    ObjectStore(str(state / "objects"), cache=state / "cache").put_bytes(b"text")
    database = engine(f"sqlite:///{state}/service/service.db")
    log = EmbeddedEventLog(state / "events.db")
    wal = Wal(state / "wal")
    try:
        with database.begin() as connection:
            connection.execute(text("CREATE TABLE records (content TEXT)"))
        log.ensure_topics([Topic("records")])
        log.producer().send([OutRecord("records", b"key", b"value")])
        log.consumer("group", ["records"]).poll(5.0)
        wal.append(b"record")
        found = {path.name for path in state.rglob("*")}
        assert {"service.db-wal", "events.db-wal", "jwks.json"} <= found
        assert private.exposed(state) == []
    finally:
        wal.close()
        log.close()
        database.dispose()


def test_an_open_state_folder_is_closed_and_a_line_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "objects").mkdir(parents=True)
    (state / "objects" / "run.sh").write_text("text")
    (state / "objects" / "run.sh").chmod(0o755)
    (state / "outside").symlink_to(tmp_path)
    assert len(private.exposed(state)) == 3
    assert "closed 3 files and folders" in private.tighten(state)
    assert private.exposed(state) == []
    assert stat.S_IMODE((state / "objects" / "run.sh").stat().st_mode) == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o700  # as pytest made it: a link is not followed
    assert private.tighten(state) == ""


def test_every_program_is_private_from_its_start() -> None:
    careless = []
    for root in ("libs", "services", "ops"):
        for path in sorted((ROOT / root).rglob("*.py")):
            if {"tests", "testing"} & set(path.parts) or 'if __name__ == "__main__"' not in path.read_text():
                continue
            if (path.parent / "pyproject.toml").exists():
                continue  # a tool of the repository, outside the package: it writes no state
            command = path.with_name("command.py")  # what a `__main__.py` of one line starts
            sources = [each.read_text() for each in (path, command) if each.exists()]
            if not any("private.protect_process()" in each or "serve(" in each for each in sources):
                careless.append(str(path.relative_to(ROOT)))
    # It writes into the repository, and no state.
    assert careless == ["libs/servicekit/servicekit/database/migrations_env.py"]
