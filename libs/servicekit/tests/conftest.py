"""What the tests of delivery share: a service's database of each kind, an event log, threads that end with the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from servicekit.database import engine, new_metadata
from servicekit.eventlog import EventLog, open_event_log
from servicekit.testing.s3 import S3Server, s3_server
from servicekit.testing.waiting import LONGEST_S

Run = Callable[[threading.Event], None]


@pytest.fixture
def service_db(database_url: str) -> Iterator[Engine]:
    """A service's database of each kind, with its outbox and inbox."""
    made = engine(database_url)
    new_metadata().create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def event_log(tmp_path: Path) -> Iterator[EventLog]:
    opened = open_event_log(f"embedded:{tmp_path / 'events.db'}")
    yield opened
    opened.close()


@pytest.fixture
def start(event_log: EventLog) -> Iterator[Callable[[Run], Callable[[], None]]]:
    """`stop = start(runner.run)` runs it in a thread; `stop()`, or the test's end, ends it and waits for it."""
    running: list[tuple[threading.Event, threading.Thread]] = []

    def begin(run: Run) -> Callable[[], None]:
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(stop,))
        thread.start()
        running.append((stop, thread))

        def end() -> None:
            stop.set()
            thread.join(LONGEST_S)
            assert not thread.is_alive()

        return end

    yield begin
    for stop, _ in running:
        stop.set()
    for _, thread in running:
        thread.join(LONGEST_S)


@pytest.fixture(scope="session")
def s3_running() -> Iterator[S3Server]:
    """One S3 server for all tests."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_running: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server. The environment of this process points to it."""
    for name, value in s3_running.environment.items():
        monkeypatch.setenv(name, value)
    return s3_running


@pytest.fixture(
    params=["folder", "memory", pytest.param("s3", marks=pytest.mark.server)],
)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty object store of each kind; all keep the same promises."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        return server.new_bucket()
    return f"{tmp_path}/objects" if request.param == "folder" else f"memory://bucket-{uuid4().hex}/prefix"
