"""The checks behind /healthz and /readyz. Each returns None when all is well, else one line about the problem."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

_TURN_S = 2.0
_PROBE_S = 2.0


def event_loop_problem(loop: asyncio.AbstractEventLoop | None) -> str | None:
    """Checks, from another thread, that the event loop runs."""
    if loop is None or loop.is_closed():
        return "the event loop is closed"
    try:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=_TURN_S)
    except TimeoutError:
        return f"the event loop has not turned for {_TURN_S:.0f} s"
    return None


def database_problem(engine: Engine) -> str | None:
    """Checks that the database answers a query."""
    try:
        with engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "the database does not answer"
    return None


class PatientProbe:
    """Runs a check in a thread of its own, so that a caller waits `limit_s` at most.

    One check runs at a time. While it hangs, later requests report at once for how long it has.
    """

    def __init__(self, check: Callable[[], str | None], name: str, limit_s: float = _PROBE_S) -> None:
        self._check = check
        self._name = name
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._running: _Run | None = None

    def problem(self) -> str | None:
        """Returns the check's result, or that there is none yet."""
        with self._lock:
            run = self._running
            if run is None or run.done.is_set():
                run = self._running = _Run()
                threading.Thread(
                    target=run.do, args=(self._check,), name=f"probe {self._name}", daemon=True
                ).start()
        if run.done.wait(max(0.0, run.began + self._limit_s - time.monotonic())):
            return run.result
        return f"{self._name} has not answered for {time.monotonic() - run.began:.0f} s"


class _Run:
    """One run of a check."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.result: str | None = "the check failed"

    def do(self, check: Callable[[], str | None]) -> None:
        try:
            self.result = check()
        finally:
            self.done.set()
