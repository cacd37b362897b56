"""A service's threads: none may die unseen, and one that does not listen is named."""

from __future__ import annotations

import logging
import threading

import pytest

from servicekit.server.threads import Threads
from servicekit.testing.waiting import LONGEST_S


def test_a_thread_that_does_not_listen_is_named_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[str] = []
    release = threading.Event()
    threads = Threads(failures.append)
    threads.add("deaf", lambda stop: (release.wait(LONGEST_S), None)[1])
    threads.start()
    with caplog.at_level(logging.ERROR):
        threads.stop(0.01)
    release.set()
    logged = [record for record in caplog.records if record.getMessage() == "thread did not stop in time"]
    assert [vars(record)["thread_name"] for record in logged] == ["deaf"]
    assert failures == []


def test_a_thread_that_ends_by_itself_is_a_failure() -> None:
    failed, failures = threading.Event(), []

    def fail(reason: str) -> None:
        failures.append(reason)
        failed.set()

    threads = Threads(fail)
    threads.add("brief", lambda stop: None)
    threads.start()
    assert failed.wait(LONGEST_S)
    assert failures == ["thread brief ended by itself"]
