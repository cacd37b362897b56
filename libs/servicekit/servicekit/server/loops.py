"""Background loops of a service, each in its own thread, with shared code for waiting, failures and stopping.

    service.add_thread("registrar", repeat(registrar.step, every_s=5, name="registrar"))

A loop ends only when it is stopped. A step that raises is counted, logged, and repeated after a growing pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tenacity import RetryError

from servicekit.errors import Aborted, Unavailable
from servicekit.heartbeats import STEP_BOUND_S, Heartbeat
from servicekit.retries import FIRST_DELAY_S, LONGEST_DELAY_S, until_stopped
from servicekit.telemetry.metrics import counter, gauge

logger = logging.getLogger(__name__)

Step = Callable[[], bool | None]
"""One round of work. Returns True when there is more work to do immediately."""

_NOTICE_STOP_S = 0.2
"""Largest delay until a waiting loop notices that it must stop: a thread can wait for only one event at a time."""

FAILURES = counter(
    "openledger_loop_failures_total", "Steps of background loops that failed and are repeated", ["loop"]
)
SUCCEEDED = gauge(
    "openledger_loop_last_success_timestamp_seconds",
    "When a background loop last completed a step, Unix time: a loop whose time does not change is stuck or failing",
    ["loop"],
)


class Loop:
    """A background loop, for `Service.add_thread`. `notify` wakes it."""

    def __init__(
        self,
        step: Step,
        every_s: float,
        *,
        name: str,
        expected: tuple[type[Exception], ...],
        first_delay_s: float,
        longest_delay_s: float,
        once_more: bool,
        bound_s: float = STEP_BOUND_S,
    ) -> None:
        self._step = step
        self._every_s = every_s
        self._name = name
        self._expected: tuple[type[Exception], ...] = (Aborted, Unavailable, *expected)
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        self._once_more = once_more
        self._notified = threading.Event()
        self._failures = 0
        self._bound_s = bound_s

    def notify(self) -> None:
        """Makes the loop run its next step now instead of at the next interval. Any thread may call it."""
        self._notified.set()

    def __call__(self, stop: threading.Event) -> None:
        """Repeats the step until `stop` is set. Raises nothing that the step raises."""
        retrying = until_stopped(
            stop, self._failed, first_delay_s=self._first_delay_s, longest_delay_s=self._longest_delay_s
        )
        self._heartbeat = Heartbeat(self._name, self._bound_s)  # registered only while the loop runs
        try:
            while not stop.is_set():
                self._notified.clear()  # before the step: a notification during the step starts another one
                try:
                    more = retrying(self._watched_step)
                except RetryError:
                    break  # stopped while the step failed
                self._succeeded()
                if more is not True:
                    self._wait(stop)
            if self._once_more:
                self._last_step()
        finally:
            self._heartbeat.close()

    def _watched_step(self) -> bool | None:
        with self._heartbeat.step():
            return self._step()

    def _wait(self, stop: threading.Event) -> None:
        until = time.monotonic() + self._every_s
        while not stop.is_set() and (left_s := until - time.monotonic()) > 0:
            if self._notified.wait(min(left_s, _NOTICE_STOP_S)):
                return

    def _last_step(self) -> None:
        try:
            self._watched_step()
        except Exception as error:  # noqa: BLE001 - logged and counted; stopping continues
            FAILURES.labels(self._name).inc()
            logger.warning("%s: the last step before stopping failed: %s", self._name, error)

    def _failed(self, error: Exception, failures: int, again_in_s: float) -> None:
        FAILURES.labels(self._name).inc()
        self._failures = failures
        self._heartbeat.failed(error)
        if not isinstance(error, self._expected):
            logger.error(
                "%s failed %d times in a row, again in %.1f s",
                self._name,
                failures,
                again_in_s,
                exc_info=error,
            )
        elif failures == 1:
            logger.warning("%s waits, and tries again until it succeeds: %s", self._name, error)

    def _succeeded(self) -> None:
        SUCCEEDED.labels(self._name).set(time.time())
        self._heartbeat.succeeded()
        if self._failures:
            logger.info("%s succeeds again after %d failures", self._name, self._failures)
            self._failures = 0


def repeat(
    step: Step,
    every_s: float,
    *,
    name: str,
    expected: tuple[type[Exception], ...] = (),
    first_delay_s: float = FIRST_DELAY_S,
    longest_delay_s: float = LONGEST_DELAY_S,
    once_more: bool = False,
    bound_s: float = STEP_BOUND_S,
) -> Loop:
    """Returns a loop that runs `step` every `every_s` seconds; after a step that returned True it does not wait.

    Args:
        step: does one round of work. Its errors are counted (`openledger_loop_failures_total`) and logged.
        name: as in logs and metrics: "outbox"; the same for every instance of the loop.
        expected: errors of outages, which are logged as one line at their beginning and one at their end, without a traceback.
            Transaction conflicts and database outages (Aborted, Unavailable) are always expected.
        first_delay_s, longest_delay_s: pauses after failures in a row.
        once_more: run one more step after `stop` is set, for example to publish a last state when a service stops.
        bound_s: how long one step may take; a longer one makes /readyz fail and name the loop.
    """
    return Loop(
        step,
        every_s,
        name=name,
        expected=expected,
        first_delay_s=first_delay_s,
        longest_delay_s=longest_delay_s,
        once_more=once_more,
        bound_s=bound_s,
    )
