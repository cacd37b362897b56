"""A loop that hangs is named by others: in /readyz, in the metrics and in the log, with what it waits on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from servicekit import heartbeats
from servicekit.auth import KeySet
from servicekit.errors import Unavailable
from servicekit.heartbeats import Heartbeat
from servicekit.server.loops import repeat
from servicekit.server.probes import PatientProbe
from servicekit.server.supervision import Supervision, stuck_problem
from servicekit.testing.waiting import LONGEST_S, eventually


@contextmanager
def hanging(name: str, bound_s: float) -> Iterator[None]:
    """A loop whose step waits until the block ends."""
    entered, release, stop = threading.Event(), threading.Event(), threading.Event()

    def wait_for_a_peer() -> None:
        entered.set()
        release.wait(LONGEST_S)

    loop = repeat(wait_for_a_peer, 60, name=name, bound_s=bound_s)
    thread = threading.Thread(target=loop, args=(stop,), daemon=True)
    thread.start()
    assert entered.wait(LONGEST_S)
    try:
        yield
    finally:
        stop.set()
        release.set()
        thread.join(LONGEST_S)
        assert not thread.is_alive()


def step_age(name: str) -> float | None:
    return REGISTRY.get_sample_value("openledger_loop_step_age_seconds", {"loop": name})


def test_a_hanging_loop_is_named_with_what_it_waits_on(caplog: pytest.LogCaptureFixture) -> None:
    supervision = Supervision()
    with caplog.at_level(logging.INFO), hanging("hangs", bound_s=0.0):
        first = step_age("hangs")
        assert first is not None
        problem = stuck_problem()
        assert problem is not None
        assert "hangs has been in one step" in problem
        assert "called by wait_for_a_peer" in problem
        supervision.check()
        supervision.check()
        later = step_age("hangs")
        assert later is not None
        assert later > first > 0
    supervision.check()
    messages = [record.getMessage() for record in caplog.records]
    assert len([each for each in messages if each.startswith("stuck: hangs")]) == 1
    assert "hangs is not stuck any more" in messages
    assert step_age("hangs") == 0
    assert stuck_problem() is None


def test_a_step_within_its_bound_is_no_trouble() -> None:
    with hanging("slow", bound_s=60.0):
        assert stuck_problem() is None


def test_a_failing_dependency_is_named_until_it_succeeds() -> None:
    heartbeat = Heartbeat("a dependency")
    heartbeat.failed(OSError("no route to host"))
    (trouble,) = (each for each in heartbeats.troubles() if each.loop == "a dependency")
    assert not trouble.stuck
    assert "no route to host" in str(trouble)
    heartbeat.succeeded()
    assert not [each for each in heartbeats.troubles() if each.loop == "a dependency"]


def test_a_probe_that_hangs_answers_in_time_and_runs_once() -> None:
    release, runs = threading.Event(), []

    def check() -> str | None:
        runs.append(1)
        release.wait(LONGEST_S)
        return None

    probe = PatientProbe(check, "the database", limit_s=0.05)
    for _ in range(3):
        assert "the database has not answered" in (probe.problem() or "")
    eventually(lambda: runs, "the check")
    release.set()
    assert len(runs) == 1


def named(loop: str) -> bool:
    return any(each.loop == loop for each in heartbeats.troubles())


class Dependency:
    def __init__(self, name: str) -> None:
        self.works = False
        self.heartbeat = Heartbeat(name, recheck=self.use)

    def use(self) -> None:
        if self.works:
            self.heartbeat.succeeded()
        else:
            self.heartbeat.failed("no answer")
            raise Unavailable("NO_ANSWER", "no answer")


def test_a_dependency_that_works_again_is_not_named_although_no_caller_uses_it() -> None:
    dependency = Dependency("a dependency that callers seldom use")
    with pytest.raises(Unavailable):
        dependency.use()
    heartbeats.recheck_failing()
    assert named(dependency.heartbeat.name)
    dependency.works = True
    heartbeats.recheck_failing()
    assert not named(dependency.heartbeat.name)


def test_a_dependency_that_never_failed_is_not_asked() -> None:
    dependency = Dependency("a dependency that works")
    heartbeats.recheck_failing()
    assert not named(dependency.heartbeat.name)


def test_signing_keys_that_could_not_be_read_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    keys = KeySet(str(file))
    with pytest.raises(Unavailable):
        keys.key("a")
    file.write_text('{"keys": []}')
    heartbeats.recheck_failing()
    assert keys.reading is not None
