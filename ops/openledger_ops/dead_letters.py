"""The dead letters of an event log, for operators: what was refused, and how it goes back to its topic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from openledger_ops.event_log import open_log
from openledger_ops.reconcile.events import records
from openledger_ops.state_folder import event_log_url
from servicekit.delivery import redrive
from servicekit.delivery.redrive import DeadLetter
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, StartupError
from servicekit.eventlog import (
    EventLog,
    EventLogError,
    InRecord,
    TopicPartition,
    topics,
)
from servicekit.eventlog.base import Consumer

_READ_S = 60.0
_GROUP = "openledger-dlq"
"""It never commits an offset: it only names who reads."""


@contextlib.contextmanager
def opened(url: str) -> Iterator[EventLog]:
    """Yields the event log and closes it.

    Raises:
        StartupError: the URL is wrong, or the log does not answer.
    """
    try:
        with contextlib.closing(open_log(url)) as log:
            yield log
    except EventLogError as error:
        raise StartupError(f"event log {url}: {error}") from None


class DeadLetters:
    """Reads a topic's dead letters and redrives them."""

    def __init__(self, log: EventLog, topic: str) -> None:
        """Opens the dead letters of a topic, named with or without `.dlq`.

        Raises:
            InvalidArgument: no such topic in the registry.
        """
        self.topic = topic.removesuffix(".dlq")
        if self.topic not in topics.BY_NAME:
            known = ", ".join(topics.BY_NAME)
            raise InvalidArgument("topic", "registry", f"topic {topic!r} is none of {known}", topic)
        self._log = log

    def letters(self) -> list[DeadLetter]:
        """Returns all letters, in the order in which they were refused."""
        topics_of_notes = (redrive.first_notes_topic(self.topic), redrive.notes_topic(self.topic))
        notes = chain.from_iterable(records(self._log, topic.name) for topic in topics_of_notes)
        return redrive.read_letters(records(self._log, f"{self.topic}.dlq"), notes)

    def letter(self, offset: int) -> DeadLetter:
        """Returns the letter at an offset.

        Raises:
            NotFound: there is none.
        """
        for letter in self.letters():
            if letter.record.offset == offset:
                return letter
        raise NotFound("dead letter", f"{self.topic}.dlq offset {offset}")

    def redrive(self, letter: DeadLetter, by: str, again: bool) -> None:
        """Sends it to the topic it came from, for the group that refused it, and records that.

        Raises:
            FailedPrecondition: it was redriven before (and not `again`), or cannot be redriven.
        """
        where = f"{self.topic}.dlq offset {letter.record.offset}"
        if letter.redrives and not again:
            last = letter.redrives[-1]
            raise FailedPrecondition(
                "REDRIVEN_BEFORE",
                f"{where} was redriven at {last.time} by {last.by}; add --again to redrive it again",
                subject=where,
            )
        try:
            event = redrive.redriven(letter, self._original_value(letter) if letter.left_out else None)
        except redrive.NotRedrivable as error:
            raise FailedPrecondition("NOT_REDRIVABLE", f"{where}: {error}", subject=where) from None
        if event.topic != self.topic:
            raise FailedPrecondition(
                "NOT_REDRIVABLE", f"{where} says that it came from {event.topic!r}", subject=where
            )
        self._log.ensure_topics([redrive.notes_topic(self.topic)])
        producer = self._log.producer()
        try:
            # The event first: a note without its event would be wrong, an event without its note is only sent again.
            producer.send([event])
            producer.send([redrive.note(letter, by)])
        finally:
            producer.close()

    def _original_value(self, letter: DeadLetter) -> bytes | None:
        """Returns the bytes from their first position; None when they are no longer kept."""
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
        if found is None or found.offset != letter.offset or found.damage:
            return None
        return found.value


def waiting_letters(state_dir: Path, topic: str, total: float) -> int | None:
    """Returns how many of a topic's letters were not redriven; None when the platform's event log cannot be read from here.

    `total`: how many the platform says there are. Letters are kept forever, so a log with fewer is another platform's.
    """
    try:
        with opened(event_log_url("", state_dir)) as log:
            letters = DeadLetters(log, topic).letters()
    except (StartupError, InvalidArgument):
        return None
    return None if len(letters) < total else sum(not letter.redrives for letter in letters)


def _first_from(consumer: Consumer, at: TopicPartition, offset: int) -> InRecord | None:
    """Returns the first record that a partition keeps from `offset` on."""
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
