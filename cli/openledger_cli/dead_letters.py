"""The dead letters of an event log, for operators: what was refused, and how it goes back."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from openledger_cli.reconcile.events import records
from openledger_cli.reconcile.places import last_settings
from servicekit import replay, topics
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, StartupError
from servicekit.eventlog import EventLog, EventLogError, InRecord, Topic, TopicPartition, open_event_log
from servicekit.eventlog.base import Consumer
from servicekit.replay import DeadLetter

_READ_S = 60.0
_GROUP = "openledger-dlq"
"""Never committed: it only names who looks."""


def event_log_url(given: str, state_dir: Path) -> str:
    """The log to look into: `given`, else the one `openledger up` last gave its services, else the state folder's own.

    Raises:
        StartupError: it is a file that is not there; looking must not make one.
    """
    url = (
        given
        or last_settings(state_dir).get("OPENLEDGER_EVENT_LOG", "")
        or f"embedded:{state_dir / 'events.db'}"
    )
    path = url.removeprefix("embedded:")
    if path != url and not Path(path).is_file():
        raise StartupError(
            f"no event log at {path}: give --state-dir the folder of a platform, or --event-log its log"
        )
    return url


@contextlib.contextmanager
def opened(url: str) -> Iterator[EventLog]:
    """The event log, closed at the end.

    Raises:
        StartupError: the URL is wrong, or the log does not answer.
    """
    try:
        log = open_event_log(url)
    except ValueError as error:
        raise StartupError(str(error)) from None
    try:
        yield log
    except EventLogError as error:
        raise StartupError(f"event log {url}: {error}") from None
    finally:
        log.close()


class DeadLetterDesk:
    """Reads a topic's dead letters and replays them."""

    def __init__(self, log: EventLog, topic: str) -> None:
        """`topic` with or without `.dlq`.

        Raises:
            InvalidArgument: no such topic in the registry.
        """
        self.topic = topic.removesuffix(".dlq")
        if self.topic not in topics.BY_NAME:
            known = ", ".join(topics.BY_NAME)
            raise InvalidArgument("topic", "registry", f"topic {topic!r} is none of {known}", topic)
        self._log = log

    def letters(self) -> list[DeadLetter]:
        """All letters, in the order they were refused."""
        notes = records(self._log, replay.notes_topic(self.topic).name)
        return replay.read_letters(records(self._log, f"{self.topic}.dlq"), notes)

    def letter(self, offset: int) -> DeadLetter:
        """The letter at an offset.

        Raises:
            NotFound: there is none.
        """
        for letter in self.letters():
            if letter.record.offset == offset:
                return letter
        raise NotFound("dead letter", f"{self.topic}.dlq offset {offset}")

    def replay(self, letter: DeadLetter, by: str, again: bool) -> None:
        """Send it to the topic it came from, for the group that refused it, and note that.

        Raises:
            FailedPrecondition: it was replayed before (and not `again`), or can't be replayed.
        """
        where = f"{self.topic}.dlq offset {letter.record.offset}"
        if letter.replays and not again:
            last = letter.replays[-1]
            raise FailedPrecondition(
                "REPLAYED_BEFORE",
                f"{where} was replayed at {last.time} by {last.by}; ask for it --again if that is meant",
                subject=where,
            )
        try:
            event = replay.replayed(letter, self._original_value(letter) if letter.left_out else None)
        except replay.NotReplayable as error:
            raise FailedPrecondition("NOT_REPLAYABLE", f"{where}: {error}", subject=where) from None
        if event.topic != self.topic:
            raise FailedPrecondition(
                "NOT_REPLAYABLE", f"{where} says that it came from {event.topic!r}", subject=where
            )
        self._log.ensure_topics([replay.notes_topic(self.topic)])
        producer = self._log.producer()
        try:
            # The event first: a note without its event would be a lie, an event without its note is only sent again.
            producer.send([event])
            producer.send([replay.note(letter, by)])
        finally:
            producer.close()

    def _original_value(self, letter: DeadLetter) -> bytes | None:
        """The bytes where they first stood; None when they are no longer kept."""
        at = TopicPartition(letter.topic, letter.partition)
        if letter.topic != self.topic or not 0 <= letter.offset < self._log.end_offsets(letter.topic).get(
            at.partition, 0
        ):
            return None
        consumer = self._log.consumer(f"{_GROUP}-{time.time_ns()}", [letter.topic])
        try:
            found = _first_from(consumer, at, letter.offset)
        finally:
            consumer.close()
        return found.value if found is not None and found.offset == letter.offset else None


def waiting_letters(state_dir: Path, topic: str, ever: float) -> int | None:
    """How many of a topic's letters were not replayed; None when the platform's event log can't be read from here.

    `ever`: how many the platform says there are. Letters are kept without end, so a log with fewer is another platform's.
    """
    try:
        with opened(event_log_url(os.environ.get("OPENLEDGER_EVENT_LOG", ""), state_dir)) as log:
            letters = DeadLetterDesk(log, topic).letters()
    except (StartupError, InvalidArgument):
        return None
    return None if len(letters) < ever else sum(not letter.replays for letter in letters)


def _first_from(consumer: Consumer, at: TopicPartition, offset: int) -> InRecord | None:
    """The first record of a partition that is kept from `offset` on."""
    deadline = time.monotonic() + _READ_S
    while at not in consumer.assignment():
        consumer.poll(0.2, max_records=1)
        if time.monotonic() > deadline:
            raise StartupError(f"topic {at.topic} could not be read within {_READ_S:.0f} s")
    consumer.pause(consumer.assignment() - {at})
    consumer.seek(at, offset)
    while time.monotonic() < deadline:
        for record in consumer.poll(0.5, max_records=1):
            if record.topic_partition == at:
                return record
    return None


def dead_letter_topics() -> list[Topic]:
    """Every topic that may have dead letters."""
    return list(topics.ALL)
