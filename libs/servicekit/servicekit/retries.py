"""Delays of retries: exponential backoff with jitter (`tenacity` does the waiting)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0


def delay_s(failures: int, first_s: float = FIRST_DELAY_S, longest_s: float = LONGEST_DELAY_S) -> float:
    """Returns the seconds before the next attempt, after `failures` failures in a row (1 or more).

    The delay is half of an exponentially growing time plus a random part of the other half. The fixed half protects a failing
    dependency from too many attempts; the jitter prevents that many clients retry at once.
    """
    full = min(longest_s, first_s * 2.0 ** min(failures - 1, 20))
    return full / 2 + random.uniform(0, full / 2)


def until_stopped(
    stop: threading.Event,
    failed: Callable[[Exception, int, float], None],
    *,
    first_delay_s: float = FIRST_DELAY_S,
    longest_delay_s: float = LONGEST_DELAY_S,
) -> Retrying:
    """Returns an object that calls a function until it succeeds, or until `stop` is set (tenacity.RetryError).

        retrying = until_stopped(stop, lambda error, failures, again_in_s: logger.warning("%s", error))
        retrying(publish)

    `failed` is called after each failure, before the wait: with the error, the failures in a row, and the seconds to wait.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, Exception)
        failed(error, state.attempt_number, state.upcoming_sleep)

    return Retrying(
        retry=retry_if_exception_type(Exception),
        wait=lambda state: delay_s(state.attempt_number, first_delay_s, longest_delay_s),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=before_sleep,
    )
