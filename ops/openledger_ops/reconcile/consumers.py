"""Consumers: an event before a group's committed offset took effect, or is a dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from openledger.audit.v1.audit_pb2 import Consumer, OutboxEvent

from openledger_client.services import Service
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.events import Published, records, valid
from openledger_ops.reconcile.facts import Facts
from servicekit.errors import StartupError
from servicekit.eventlog import EventLog, Topic, UnknownTopic, topics


@dataclass
class Consumers:
    """Which events have reached which service. Services say themselves what they consume."""

    log: EventLog
    facts: Mapping[Service[Any], Facts]
    _checked: set[str] = field(default_factory=set)
    _dead: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def handled(self, service: Service[Any], topic: Topic, event: Published[Any]) -> bool:
        """Whether an event has taken effect in a service, by its inbox.

        Raises:
            StartupError: the service does not consume the topic, so nothing could be concluded.
        """
        groups = self.facts[service].consumers(topic.name)
        if not groups:
            raise StartupError(
                f"{service} says that it does not consume {topic.name}: is it of this release?"
            )
        inboxes = self.facts[service].inboxes
        return any(event.event_id in inboxes.get(each.group, ()) for each in groups)

    def check(self, book: Book, topic: Topic, kind: type[Message], events: Sequence[Published[Any]]) -> None:
        """Checks all events of one type in a topic, for every service that handles them."""
        self._checked.add(topic.name)
        for service, facts in self.facts.items():
            for consumer in facts.consumers(topic.name):
                if kind.DESCRIPTOR.full_name in consumer.event_types:
                    inbox = facts.inboxes.get(consumer.group, set())
                    self._check(book, f"{topic.name} -> {service}", consumer, events, inbox)

    def check_rest(self, book: Book) -> None:
        """Checks topics that services consume and no other check has read."""
        consumed = {each.topic for facts in self.facts.values() for each in facts.of(Consumer)}
        for topic in sorted(consumed - self._checked):
            by_type: dict[str, dict[str, Published[None]]] = {}
            for record in valid(self.log, topic, book):
                headers = dict(record.headers)
                event_id = headers["ce_id"].decode()
                event = Published(
                    partition=record.partition, offset=record.offset, event_id=event_id, kept=None
                )
                by_type.setdefault(headers["ce_type"].decode(), {}).setdefault(event_id, event)
            for service, facts in self.facts.items():
                for consumer in facts.consumers(topic):
                    events = [e for t in consumer.event_types for e in by_type.get(t, {}).values()]
                    inbox = facts.inboxes.get(consumer.group, set())
                    self._check(book, f"{topic} -> {service}", consumer, events, inbox)

    def outboxes(self, book: Book) -> None:
        """Adds what is committed and not published."""
        for service, facts in self.facts.items():
            link = f"outbox of {service}"
            book.saw(link, 0)
            for event in facts.of(OutboxEvent):
                book.waiting(link, event.event_id, f"is not in {event.topic} yet")

    def _check(
        self, book: Book, link: str, consumer: Consumer, events: Sequence[Published[Any]], inbox: set[str]
    ) -> None:
        book.saw(link, len(events))
        committed = self._committed(consumer.group, consumer.topic)
        dead = self._dead_letters(consumer.topic)
        for each in events:
            if each.event_id in inbox:
                continue
            if (consumer.group, each.event_id) in dead:
                book.waiting(link, each.event_id, "is a dead letter")
            elif each.partition >= 0 and each.offset < committed.get(each.partition, 0):
                where = f"partition {each.partition} offset {each.offset}"
                book.lost(link, each.event_id, f"{where} is committed, but the event took no effect")
            else:
                book.waiting(link, each.event_id, "is not handled yet")

    def _committed(self, group: str, topic: str) -> dict[int, int]:
        try:
            return self.log.committed(group, topic)
        except UnknownTopic:
            return {}

    def _dead_letters(self, topic: str) -> set[tuple[str, str]]:
        """Returns (group, event id) of a topic's dead letters."""
        if topic not in self._dead:
            name = topics.BY_NAME[topic].dead_letters().name if topic in topics.BY_NAME else f"{topic}.dlq"
            headers = (dict(record.headers) for record in records(self.log, name))
            self._dead[topic] = {(_text(found, "dlq_group"), _text(found, "ce_id")) for found in headers}
        return self._dead[topic]


def _text(headers: Mapping[str, bytes], name: str) -> str:
    """Returns a header of a dead letter: it has what the refused record had, which may be no text."""
    return headers.get(name, b"").decode(errors="replace")
