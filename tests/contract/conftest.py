"""The two event logs the contract is checked on, and names that keep the tests of one session apart."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openledger_testing.kafka_broker import kafka_address  # noqa: F401 - a fixture
from servicekit.eventlog import EventLog, Topic, open_event_log

_NUMBERS = itertools.count()
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.server)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the event log is: `open_event_log(log_url)` is what another process would do."""
    if request.param == "embedded":
        return f"embedded:{tmp_path / 'events.db'}"
    return f"kafka://{request.getfixturevalue('kafka_address')}"


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
        name = f"contract.{_WORKER}.topic{next(_NUMBERS)}.v1"  # workers share a broker
        self._log.ensure_topics([Topic(name, partitions, retention_hours)])
        return name
