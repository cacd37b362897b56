"""The threads in which RPC handlers wait for databases and disks, and how many of them are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from servicekit.metrics import saturation

P = ParamSpec("P")
T = TypeVar("T")


class HandlerThreads(ThreadPoolExecutor):
    """As its base class, and tells how much it has to do: `openledger_saturation_ratio{resource="handler_threads"}`."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="handler")
        self._lock = threading.Lock()
        self._unfinished = 0
        saturation("handler_threads", lambda: self._unfinished, threads)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the base class's; what waits for a thread counts as well."""
        future = super().submit(fn, *args, **kwargs)
        self._count(1)
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._lock:
            self._unfinished += change
