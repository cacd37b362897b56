"""Two processes of one service write the same rows at once: on either database everything is there, once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openledger_testing.concurrent_writers import WRITERS
from servicekit.database import engine, migrate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("service", WRITERS)
def test_what_two_processes_write_at_once_is_there_once(service: str, database_url: str) -> None:
    database = engine(database_url)
    migrate(database, service)
    WRITERS[service].prepare(database)
    command = [sys.executable, "-m", "openledger_testing.concurrent_writers", service, database_url]
    started = [
        subprocess.Popen(
            [*command, str(part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    WRITERS[service].check(database)
    database.dispose()
