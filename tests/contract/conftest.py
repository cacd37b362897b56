"""The two event logs the contract is checked on, and names that keep the tests of one session apart."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servicekit.eventlog import EventLog, Topic, open_event_log

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kafka"))
from kafka_broker import kafka_broker  # noqa: F401 - a fixture

_NUMBERS = itertools.count()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.server)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the event log is: `open_event_log(log_url)` is what another process would do."""
    if request.param == "embedded":
        return f"embedded:{tmp_path / 'events.db'}"
    return f"kafka://{request.getfixturevalue('kafka_broker').address}"


@pytest.fixture
def log(log_url: str) -> Iterator[EventLog]:
    opened = open_event_log(log_url)
    yield opened
    opened.close()


@pytest.fixture
def new_topic(log: EventLog) -> TopicMaker:
    """Makes topics that no other test has."""
    return TopicMaker(log)


class TopicMaker:
    """`new_topic(partitions=3)` makes a topic and returns its name."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def __call__(self, partitions: int = 1, retention_hours: int | None = None) -> str:
        name = f"contract.topic{next(_NUMBERS)}.v1"
        self._log.ensure_topics([Topic(name, partitions, retention_hours)])
        return name
