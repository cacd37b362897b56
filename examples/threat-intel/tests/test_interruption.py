"""A request to stop is obeyed, even where the exception that carries it was lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from threat_intel.interruption import Interruption
from threat_intel.journal import Journal
from threat_intel.platform import Platform
from threat_intel.run import Run
from threat_intel.scale import SMALL
from threat_intel.story import execute_all


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    listening = Interruption()
    listening.listen()
    yield listening
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path, interruption: Interruption) -> Run:
    journal = Journal.open(tmp_path / "journal.json", SMALL.name)
    return Run(
        folder=tmp_path,
        scale=SMALL,
        journal=journal,
        platform=cast(Platform, cast(Any, None)),
        interruption=interruption,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_at_once(number: signal.Signals, interruption: Interruption) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_without_a_request_nothing_is_raised() -> None:
    Interruption().check()


def lose_a_signal() -> None:
    """As a library does whose callback the exception was raised in."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return


def test_a_lost_request_is_obeyed_at_the_next_line(run: Run) -> None:
    run.say("before")
    lose_a_signal()
    with pytest.raises(KeyboardInterrupt):
        run.say("after")


def test_a_lost_request_is_obeyed_at_the_next_progress(run: Run) -> None:
    with run.progress("scored", 3) as bar:
        bar.at(1, 3)
        lose_a_signal()
        with pytest.raises(KeyboardInterrupt):
            bar.at(2, 3)


def test_a_lost_request_is_obeyed_before_the_next_step(run: Run) -> None:
    lose_a_signal()
    with pytest.raises(KeyboardInterrupt):
        execute_all(run)
