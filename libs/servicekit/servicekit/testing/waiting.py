"""Waiting in tests: for a condition, never for a fixed time.

What another thread or process does after it has answered (a counter, a log record, a span, a row) is not there when the
answer arrives. A test that reads it waits for it here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

LONGEST_S = 120.0
"""Longer than a loaded machine delays anything. Only a test that fails waits for so long."""

_BETWEEN_S = 0.01


def eventually(condition: Callable[[], T], what: str = "the condition", *, within_s: float = LONGEST_S) -> T:
    """Returns the first true value that `condition` returns.

    Raises:
        AssertionError: there was none within `within_s`. It names `what` and the last value.
    """
    for value in _values(condition, what, within_s):
        if value:
            return value
        time.sleep(_BETWEEN_S)
    raise AssertionError  # _values has raised


async def eventually_async(
    condition: Callable[[], T], what: str = "the condition", *, within_s: float = LONGEST_S
) -> T:
    """Returns the same as `eventually`, without blocking the event loop in between.

    Raises:
        AssertionError: as `eventually`.
    """
    for value in _values(condition, what, within_s):
        if value:
            return value
        await asyncio.sleep(_BETWEEN_S)
    raise AssertionError  # _values has raised


def _values(condition: Callable[[], T], what: str, within_s: float) -> Iterator[T]:
    """Yields what the condition returns, again and again; the last time begins after the deadline, so that a process that
    was stalled until then asks once more."""
    end, late = time.monotonic() + within_s, False
    while not late:
        late = time.monotonic() > end
        yield (value := condition())
    raise AssertionError(f"waited {within_s:g} s for {what}; the last value was {value!r}")
