"""What becomes of one record: its effect with its inbox row in one transaction, or a place among the dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from servicekit import delivery_metrics, inbox
from servicekit.database import run_in_transaction
from servicekit.dead_letters import DeadLetters
from servicekit.eventlog.base import InRecord
from servicekit.events import Event, InvalidEvent, from_record
from servicekit.replay import REPLAY_FOR
from servicekit.spans import processing

Handler = Callable[[Session, Event[Any]], None]
"""Makes the event's change through the session and nowhere else: the transaction may run more than once."""
Handlers = Mapping[str, Mapping[str, Handler]]
"""By topic, then by event type."""
Outcome = Literal["handled", "repeated", "skipped", "dead_lettered"]


class Delivery:
    """Delivers a group's records. May be called by several threads, for records of different partitions."""

    def __init__(
        self, system: str, engine: Engine | None, group: str, handlers: Handlers, dead_letters: DeadLetters
    ) -> None:
        """`system`: what traces call the event log."""
        self._system = system
        self._engine = engine
        self._group = group
        self._handlers = handlers
        self._dead_letters = dead_letters

    def deliver(self, record: InRecord) -> None:
        """Let the record take effect, skip it, or move it aside, and count which.

        Raises DeadLetterCapReached, and what the handler raises that is not InvalidEvent: then nothing happened.
        """
        outcome = self._deliver(record)
        delivery_metrics.CONSUMED.labels(self._group, record.topic, outcome).inc()

    def _deliver(self, record: InRecord) -> Outcome:
        by_type = self._handlers[record.topic]
        headers = dict(record.headers)
        event_type = headers.get("ce_type", b"").decode(errors="replace")
        if event_type and event_type not in by_type:
            return "skipped"
        if headers.get(REPLAY_FOR, self._group.encode()) != self._group.encode():
            return "skipped"
        try:
            event = from_record(record)
            outcome = self._take_effect(by_type[event.type], event, record)
        except InvalidEvent as error:
            self._dead_letters.move(record, error)
            return "dead_lettered"
        self._dead_letters.valid()
        return outcome

    def _take_effect(self, handler: Handler, event: Event[Any], record: InRecord) -> Outcome:
        """Run the handler in the inbox transaction, as part of the trace that made the event."""
        span = processing(self._system, self._group, record)
        with span, delivery_metrics.HANDLING_S.labels(self._group, event.topic).time():
            if self._engine is None:
                handler(Session(), event)
                new = True
            else:
                new = run_in_transaction(self._engine, lambda session: self._once(session, handler, event))
        age_s = time.time() - event.time.timestamp()
        delivery_metrics.DELIVERY_S.labels(self._group, event.topic).observe(max(0.0, age_s))
        return "handled" if new else "repeated"

    def _once(self, session: Session, handler: Handler, event: Event[Any]) -> bool:
        if not inbox.once(session, self._group, event.id):
            return False
        handler(session, event)
        return True
