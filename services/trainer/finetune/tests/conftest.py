"""What finetune's tests share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Returns when the condition holds; fails the test when it does not in time."""
    end, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not hold in time"
        pause.wait(0.01)


@pytest.fixture
def wait() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition, with a bound."""
    return eventually
