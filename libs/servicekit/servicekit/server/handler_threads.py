"""The threads in which RPC handlers wait for databases and disks, and those in which they compute, with metrics of their load."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from servicekit.server.call import check_cancelled
from servicekit.telemetry.metrics import Resource, saturation

P = ParamSpec("P")
T = TypeVar("T")

_POOLS: weakref.WeakSet[HandlerThreads] = weakref.WeakSet()


class HandlerThreads(ThreadPoolExecutor):
    """A thread pool that publishes its load: `openledger_saturation_ratio{resource="handler_threads"}`."""

    def __init__(self, threads: int, resource: Resource = "handler_threads", prefix: str = "handler") -> None:
        super().__init__(threads, thread_name_prefix=prefix)
        self._lock = threading.Lock()
        self._unfinished = 0
        _POOLS.add(self)
        saturation(resource, lambda: self._unfinished, threads)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submits as the base class does. Tasks that wait for a thread count as load too."""
        future = super().submit(fn, *args, **kwargs)
        self._count(1)
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._lock:
            self._unfinished += change


class HeavyWork:
    """A few threads of their own for one kind of work that computes for long: judging records, sealing.

    Where such work shares the threads of all handlers, one caller's streams take every thread, and a read of anyone else
    waits for seconds. Two threads are enough: Python computes in one at a time, and every further one delays the event loop.

    The load is `openledger_saturation_ratio{resource=...}`.
    """

    def __init__(self, resource: Resource, threads: int = 2) -> None:
        self._threads = HandlerThreads(threads, resource, f"handler-{resource}")

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns what the function returns in one of the threads, with the caller's context as in `asyncio.to_thread`.

        Work whose call is over before a thread is free is not begun; work that runs ends at its next `check_cancelled`.

        Raises:
            Cancelled: the call is over.
        """
        context = contextvars.copy_context()
        begin = partial(context.run, _begin, fn, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, begin)


def end_idle(pools: Iterable[HandlerThreads] | None = None) -> None:
    """Ends the handler threads of these pools (default: of this process) that have nothing to do. Does not wait.

    A thread that lives on after this hangs: without this call, one that waits for work looks the same.
    """
    for pool in list(_POOLS if pools is None else pools):
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    check_cancelled()
    return fn(*args, **kwargs)
