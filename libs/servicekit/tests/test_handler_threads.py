"""Handler threads end when they have nothing to do; only those that hang are left behind."""

from __future__ import annotations

import threading

from servicekit.server.handler_threads import HandlerThreads, end_idle
from servicekit.testing.waiting import eventually

_PREFIX = "handler-of-this-test"


def _alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(_PREFIX)]


def test_threads_that_wait_for_work_end_and_one_that_hangs_does_not() -> None:
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait()

    with HandlerThreads(1, prefix=_PREFIX) as idle, HandlerThreads(1, prefix=_PREFIX) as busy:
        idle.submit(int).result()
        busy.submit(hang)
        begun.wait()
        assert len(_alive()) == 2
        end_idle([idle, busy])
        eventually(lambda: len(_alive()) == 1, "the end of the thread without work")
        release.set()
        eventually(lambda: not _alive(), "the end of the other")
