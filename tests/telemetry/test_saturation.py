"""A bounded resource reports how full it is, at the moment it is asked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from servicekit.database import engine
from servicekit.server.handler_threads import HandlerThreads
from servicekit.testing.waiting import LONGEST_S
from servicekit.wal import Wal


def full(resource: str) -> float:
    value = REGISTRY.get_sample_value("openledger_saturation_ratio", {"resource": resource})
    assert value is not None
    return value


def test_unsent_answers_fill_the_write_ahead_log_until_they_are_sent(tmp_path: Path) -> None:
    wal = Wal(tmp_path, segment_bytes=1 << 20, max_bytes=2 << 20)
    start = wal.position()
    for _ in range(4):
        wal.append(b"x" * 262_100)
    unsent = REGISTRY.get_sample_value("openledger_wal_unsent_bytes")
    assert full("write_ahead_log") == pytest.approx(0.5, abs=0.01)
    assert unsent == pytest.approx(1 << 20, abs=1000)
    while True:
        sent, start = wal.read(start)
        if not sent:
            break
    wal.release(start)
    assert REGISTRY.get_sample_value("openledger_wal_unsent_bytes") == 0
    assert full("write_ahead_log") == 0
    wal.close()


def test_work_that_waits_for_a_handler_thread_makes_them_more_than_full() -> None:
    go_on = threading.Event()
    with HandlerThreads(2) as threads:
        futures = [threads.submit(go_on.wait, LONGEST_S) for _ in range(5)]
        assert full("handler_threads") == 2.5
        go_on.set()
        assert all(future.result(LONGEST_S) for future in futures)
    assert full("handler_threads") == 0


def test_connections_in_use_are_counted(tmp_path: Path) -> None:
    opened = engine(f"sqlite:///{tmp_path / 'a.db'}")
    assert full("database_connections") == 0
    with opened.connect(), opened.connect():
        two = full("database_connections")
        assert two > 0
        with opened.connect():
            assert full("database_connections") == pytest.approx(1.5 * two)
    assert full("database_connections") == 0
    opened.dispose()
