"""How long to wait before trying again: exponentially longer, and never in step with others."""

from __future__ import annotations

import random
import threading

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0


def delay_s(failures: int) -> float:
    """Seconds before the next attempt, after `failures` failures in a row (1 or more).

    Half of an exponentially growing time, plus a random part of the other half: the floor keeps a failing
    dependency from being hammered, the jitter keeps many clients from coming back at once.
    """
    full = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 20))
    return full / 2 + random.uniform(0, full / 2)


def wait(stop: threading.Event, failures: int) -> bool:
    """Wait that long; True when `stop` was set."""
    return stop.wait(delay_s(failures))
