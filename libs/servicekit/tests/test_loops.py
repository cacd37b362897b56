"""A loop repeats its step, retries after failures, and stops immediately when it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from servicekit.errors import Unavailable
from servicekit.retries import delay_s
from servicekit.server.loops import Loop, repeat
from servicekit.testing.waiting import LONGEST_S


class Steps:
    """Counts the steps of a loop; each does what `acts` says next, and the loop stops when they are used up."""

    def __init__(self, *acts: Exception | bool | None) -> None:
        self.stop = threading.Event()
        self.taken = 0
        self.at_s: list[float] = []
        self._acts = acts

    def __call__(self) -> bool | None:
        self.at_s.append(time.monotonic())
        act = self._acts[self.taken] if self.taken < len(self._acts) else None
        self.taken += 1
        if self.taken >= len(self._acts):
            self.stop.set()
        if isinstance(act, Exception):
            raise act
        return act


def failures(name: str) -> float:
    return REGISTRY.get_sample_value("openledger_loop_failures_total", {"loop": name}) or 0.0


def lines_of(loop: str, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Without those of other threads of this process."""
    return [record for record in caplog.records if record.getMessage().startswith(f"{loop} ")]


def test_steps_follow_at_the_interval_and_at_once_while_there_is_more_to_do() -> None:
    eager = Steps(True, True, True, None)
    repeat(eager, 3600, name="eager")(eager.stop)  # an interval in between would not end
    assert eager.taken == 4
    steady = Steps(None, None)
    repeat(steady, 0.05, name="steady")(steady.stop)
    assert steady.at_s[1] - steady.at_s[0] >= 0.05


def test_failures_are_counted_logged_and_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(ValueError("a defect"), ValueError("a defect"), None)
    with caplog.at_level(logging.INFO):
        repeat(steps, 0, name="unlucky", first_delay_s=0.001)(steps.stop)
    assert steps.taken == 3
    assert failures("unlucky") == 2
    logged = lines_of("unlucky", caplog)
    assert [record.levelname for record in logged] == ["ERROR", "ERROR", "INFO"]
    assert logged[0].exc_info
    assert "unlucky succeeds again after 2 failures" in caplog.text
    assert REGISTRY.get_sample_value("openledger_loop_last_success_timestamp_seconds", {"loop": "unlucky"})


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    down = [Unavailable("DATABASE_UNAVAILABLE", "the database does not answer")] * 2
    steps = Steps(*down, OSError("no route to host"), None)
    with caplog.at_level(logging.INFO):
        repeat(steps, 0, name="patient", first_delay_s=0.001, expected=(OSError,))(steps.stop)
    logged = lines_of("patient", caplog)
    assert [record.levelname for record in logged] == ["WARNING", "INFO"]
    assert not any(record.exc_info for record in logged)
    assert failures("patient") == 3


@pytest.mark.parametrize("outcome", [None, ValueError("down")])
def test_a_stop_ends_the_wait_for_the_next_step_and_for_the_next_attempt(outcome: Exception | None) -> None:
    stop, stepped = threading.Event(), threading.Event()

    def step() -> None:
        stepped.set()
        if outcome is not None:
            raise outcome

    thread = threading.Thread(
        target=repeat(step, 600, name="slow", first_delay_s=600, longest_delay_s=600), args=(stop,)
    )
    thread.start()
    assert stepped.wait(LONGEST_S)
    stop.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive()


def running(loop: Loop) -> tuple[threading.Event, Callable[[], None]]:
    stop = threading.Event()
    thread = threading.Thread(target=loop, args=(stop,))
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(LONGEST_S)
        assert not thread.is_alive()

    return stop, end


def test_a_notified_loop_steps_now_and_once_more_for_what_was_notified_during_a_step() -> None:
    taken = threading.Semaphore(0)
    loop = repeat(lambda: taken.release(), 600, name="notified")
    _, end = running(loop)
    try:
        assert taken.acquire(timeout=LONGEST_S)
        loop.notify()
        assert taken.acquire(timeout=LONGEST_S)
    finally:
        end()


def test_a_last_step_is_taken_after_the_stop_and_may_fail() -> None:
    steps = Steps(None, ValueError("closed already"))
    steps.stop.set()
    repeat(steps, 0, name="last", once_more=True)(steps.stop)
    assert steps.taken == 1
    stopped = Steps(ValueError("closed already"))
    stopped.stop.set()
    repeat(stopped, 0, name="last", once_more=True)(stopped.stop)
    assert failures("last") == 1


def test_delays_double_up_to_a_bound_and_differ() -> None:
    for attempt, full in ((1, 0.1), (2, 0.2), (5, 1.6), (40, 30.0)):
        delays = {delay_s(attempt) for _ in range(20)}
        assert full / 2 <= min(delays) < max(delays) <= full
