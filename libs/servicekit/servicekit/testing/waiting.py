"""Waiting in tests: for a condition, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable

_BETWEEN_S = 0.01


def eventually(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Returns once the condition holds. Raises AssertionError when it does not in time."""
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"the condition did not come true within {within_s:g} s")
        time.sleep(_BETWEEN_S)
