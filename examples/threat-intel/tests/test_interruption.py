"""A wish to stop is met, even where the exception that carries it was lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from threat_intel.interruption import Interruption
from threat_intel.journal import Journal
from threat_intel.platform import Platform
from threat_intel.scale import SMALL
from threat_intel.story import tell
from threat_intel.telling import Telling


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
def telling(tmp_path: Path, interruption: Interruption) -> Telling:
    journal = Journal.open(tmp_path / "journal.json", SMALL.name)
    return Telling(tmp_path, SMALL, journal, cast(Platform, cast(Any, None)), interruption)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_at_once(number: signal.Signals, interruption: Interruption) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_nobody_asked() -> None:
    Interruption().check()


def lose_a_signal() -> None:
    """As a library does whose callback the exception was raised in."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return


def test_a_lost_wish_is_met_at_the_next_line(telling: Telling) -> None:
    telling.say("before")
    lose_a_signal()
    with pytest.raises(KeyboardInterrupt):
        telling.say("after")


def test_a_lost_wish_is_met_at_the_next_progress(telling: Telling) -> None:
    with telling.bar("scored", 3) as bar:
        bar.at(1, 3)
        lose_a_signal()
        with pytest.raises(KeyboardInterrupt):
            bar.at(2, 3)


def test_a_lost_wish_is_met_before_the_next_step(telling: Telling) -> None:
    lose_a_signal()
    with pytest.raises(KeyboardInterrupt):
        tell(telling)
