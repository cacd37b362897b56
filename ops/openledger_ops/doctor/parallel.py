"""Calls that run at the same time, for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")


def in_parallel(calls: Sequence[Callable[[], T]], limit_s: float) -> list[T | None]:
    """Returns what each call returned; None for one that takes longer, which goes on in a thread that keeps no process alive.

    Raises what a call raised.
    """
    running = [_Running(call) for call in calls]
    until = time.monotonic() + limit_s
    return [one.result(max(0.0, until - time.monotonic())) for one in running]


class _Running(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._ended = Future[T]()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._ended.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._ended.set_exception(error)

    def result(self, within_s: float) -> T | None:
        if not wait([self._ended], within_s).done:
            return None
        return self._ended.result(0)
