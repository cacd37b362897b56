"""The threads of a service. Each runs until the service stops; when one ends earlier, the service is notified."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

Run = Callable[[threading.Event], None]
"""Runs until the event is set, then returns soon."""


@dataclass
class Threads:
    """A group of threads that start and stop together.

    Args:
        on_failure: called in a thread that raised an exception, or that ended before it was stopped.
    """

    on_failure: Callable[[str], None]
    _runs: list[tuple[str, Run]] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, run: Run) -> None:
        """Adds a thread. Call it before `start`."""
        self._runs.append((name, run))

    def start(self) -> None:
        """Starts all threads."""
        for name, run in self._runs:
            # daemon: a thread that does not stop must not keep a stopped process alive forever.
            thread = threading.Thread(target=self._guard, args=(name, run), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, within_s: float) -> None:
        """Stops all threads and waits for all of them within the time. Logs each thread that does not stop."""
        self._stop.set()
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                logger.error("thread did not stop in time", extra={"thread_name": thread.name})
        self._threads.clear()

    def _guard(self, name: str, run: Run) -> None:
        try:
            run(self._stop)
        except BaseException as error:
            logger.error("thread failed", exc_info=error, extra={"thread_name": name})
            self.on_failure(f"thread {name} failed: {error}")
            return
        if not self._stop.is_set():
            self.on_failure(f"thread {name} ended by itself")
