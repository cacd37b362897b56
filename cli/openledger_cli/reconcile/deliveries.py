"""Consumers: an event before a group's committed offset took effect, or was moved aside for an operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.events import Telling, Told, records
from servicekit.eventlog import EventLog, Topic, UnknownTopic

GROUPS = {
    "trainer": "trainer",
    "inference": "inference",
    "attribution": "attribution",
    "chain_relay": "chain-relay",
}
"""Consumer group by service."""


@dataclass
class Deliveries:
    """Which events have reached which service."""

    telling: Telling
    _inboxes: dict[str, set[str]] = field(default_factory=dict)
    _committed: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    _aside: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def effective(self, service: str, told: Told[Any]) -> bool:
        """Whether the event has taken effect in a service, by its inbox."""
        return told.event_id in self._inbox(service)

    def check(self, book: Book, topic: Topic, told: Sequence[Told[Any]], services: Iterable[str]) -> None:
        """Judges all events of a topic for each service that handles them."""
        for service in services:
            link = f"{topic.name} -> {service}"
            book.saw(link, len(told))
            group = GROUPS[service]
            committed = self._offsets(group, topic.name)
            inbox, aside = self._inbox(service), self._moved_aside(topic)
            for each in told:
                if each.event_id in inbox:
                    continue
                if (group, each.event_id) in aside:
                    book.waiting(link, each.event_id, "was moved to the dead letters")
                elif each.partition >= 0 and each.offset < committed.get(each.partition, 0):
                    where = f"partition {each.partition} offset {each.offset}"
                    book.lost(link, each.event_id, f"{where} is committed, but it took no effect")
                else:
                    book.waiting(link, each.event_id, "is not handled yet")

    def outboxes(self, book: Book) -> None:
        """Notes what is committed and not published."""
        for service, rows in self.telling.rows.items():
            link = f"outbox of {service}"
            book.saw(link, 0)
            for row in rows.all("SELECT event_id, topic FROM outbox"):
                book.waiting(link, row.event_id, f"is not in {row.topic} yet")

    def _inbox(self, service: str) -> set[str]:
        if service not in self._inboxes:
            rows = self.telling.rows[service].all("SELECT consumer, event_id FROM inbox")
            self._inboxes[service] = {row.event_id for row in rows if row.consumer == GROUPS[service]}
        return self._inboxes[service]

    def _offsets(self, group: str, topic: str) -> dict[int, int]:
        if (group, topic) not in self._committed:
            self._committed[group, topic] = _committed(self.telling.log, group, topic)
        return self._committed[group, topic]

    def _moved_aside(self, topic: Topic) -> set[tuple[str, str]]:
        """(group, event) of a topic's dead letters."""
        if topic.name not in self._aside:
            headers = (
                dict(record.headers) for record in records(self.telling.log, topic.dead_letters().name)
            )
            self._aside[topic.name] = {
                (found.get("dlq_group", b"").decode(), found.get("ce_id", b"").decode()) for found in headers
            }
        return self._aside[topic.name]


def _committed(log: EventLog, group: str, topic: str) -> dict[int, int]:
    try:
        return log.committed(group, topic)
    except UnknownTopic:
        return {}
