"""Delivery of records: each takes effect in one transaction with its inbox row, or moves to the dead letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from servicekit.database import run_in_transaction
from servicekit.delivery import inbox
from servicekit.delivery import metrics as delivery_metrics
from servicekit.delivery.dead_letters import DeadLetters
from servicekit.delivery.redrive import redriven_for
from servicekit.errors import Unavailable
from servicekit.eventlog.base import InRecord
from servicekit.eventlog.events import Event, InvalidEvent, from_record
from servicekit.telemetry.spans import processing, processing_batch
from servicekit.telemetry.traces import current_traceparent

logger = logging.getLogger(__name__)

Handler = Callable[[Session, Event[Any]], None]
"""Makes the event's change through the session and nowhere else: the transaction may run more than once."""


@dataclass(frozen=True)
class BatchHandler:
    """Makes the changes of many events in one transaction: `handle(session, events)`.

    The events have one type, are in the order of the log, and are new to the group. When `handle` raises, one of them is
    assumed to be at fault: the batch is rolled back, and its events are handled one at a time.
    """

    handle: Callable[[Session, Sequence[Event[Any]]], None]


Handlers = Mapping[str, Mapping[str, Handler | BatchHandler]]
"""By topic, then by event type."""
Outcome = Literal["handled", "repeated", "skipped", "dead_lettered"]


class Delivery:
    """Delivers a group's records. May be called by several threads, for records of different partitions."""

    def __init__(
        self, system: str, engine: Engine | None, group: str, handlers: Handlers, dead_letters: DeadLetters
    ) -> None:
        """`system`: the name of the event log in traces."""
        self._system = system
        self._engine = engine
        self._group = group
        self._handlers = handlers
        self._dead_letters = dead_letters

    def together(self, record: InRecord) -> tuple[str, str] | None:
        """Returns topic and type of a record that a batch handler may take together with others; None for other records."""
        headers = dict(record.headers)
        event_type = headers.get("ce_type", b"").decode(errors="replace")
        handler = self._handlers[record.topic].get(event_type)
        return (
            (record.topic, event_type)
            if isinstance(handler, BatchHandler) and redriven_for(headers) is None
            else None
        )

    def deliver(self, records: Sequence[InRecord]) -> Iterator[int]:
        """Handles, skips or dead-letters the records of one bundle, and counts the outcomes; yields how many are done at a time.

        Raises DeadLetterCapReached, and every error of the handler except InvalidEvent. Then the first record that was not
        yielded, and those after it, had no effect.
        """
        if len(records) > 1 and self._deliver_batch(records):
            yield len(records)
            return
        for record in records:
            outcome = self._deliver(record)
            delivery_metrics.CONSUMED.labels(self._group, record.topic, outcome).inc()
            yield 1

    def _deliver_batch(self, records: Sequence[InRecord]) -> bool:
        """Returns whether all took effect in one transaction. If not, none did, and each must be delivered alone."""
        topic = records[0].topic
        began = time.monotonic()
        try:
            arrived = [from_record(record) for record in records]
            handler = self._handlers[topic][arrived[0].type]
            assert isinstance(handler, BatchHandler)
            with processing_batch(self._system, self._group, records) as traceparents:
                events = {  # a repeat within the batch counts once
                    event.id: replace(event, traceparent=traceparent or None)
                    for event, traceparent in zip(arrived, traceparents, strict=True)
                }
                new = self._handle_batch(handler, list(events.values()))
        except Unavailable:
            raise  # one at a time fails as well while the database is down
        except Exception as error:  # noqa: BLE001 - after any error the events are handled one by one
            delivery_metrics.BATCHES_SPLIT.labels(self._group, topic).inc()
            logger.warning(
                "%d events of %s cannot be handled together, now one by one: %s", len(records), topic, error
            )
            return False
        each_s = (time.monotonic() - began) / len(records)
        delivery_metrics.BATCH_RECORDS.labels(self._group, topic).observe(len(records))
        for outcome, count in (("handled", len(new)), ("repeated", len(records) - len(new))):
            delivery_metrics.CONSUMED.labels(self._group, topic, outcome).inc(count)
        for event in events.values():
            delivery_metrics.HANDLING_S.labels(self._group, topic).observe(each_s)
            self._observe_age(event)
        for _ in records:
            self._dead_letters.valid()
        return True

    def _handle_batch(self, handler: BatchHandler, events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        """Returns the events that were new."""
        if self._engine is None:
            handler.handle(Session(), events)
            return events

        def change(session: Session) -> Sequence[Event[Any]]:
            unseen = inbox.once_each(session, self._group, [event.id for event in events])
            new = [event for event in events if event.id in unseen]
            if new:
                handler.handle(session, new)
            return new

        return run_in_transaction(self._engine, change)

    def _deliver(self, record: InRecord) -> Outcome:
        by_type = self._handlers[record.topic]
        headers = dict(record.headers)
        event_type = headers.get("ce_type", b"").decode(errors="replace")
        if event_type and event_type not in by_type:
            return "skipped"
        if redriven_for(headers) not in (None, self._group.encode()):
            return "skipped"
        try:
            event = from_record(record)
            outcome = self._take_effect(by_type[event.type], event, record)
        except InvalidEvent as error:
            self._dead_letters.move(record, error)
            return "dead_lettered"
        self._dead_letters.valid()
        return outcome

    def _take_effect(self, handler: Handler | BatchHandler, event: Event[Any], record: InRecord) -> Outcome:
        """Runs the handler in the inbox transaction, in the trace in which the event was made."""
        alone = _alone(handler)
        span = processing(self._system, self._group, record)
        with span, delivery_metrics.HANDLING_S.labels(self._group, event.topic).time():
            event = replace(event, traceparent=current_traceparent() or None)
            if self._engine is None:
                alone(Session(), event)
                new = True
            else:
                new = run_in_transaction(self._engine, lambda session: self._once(session, alone, event))
        self._observe_age(event)
        return "handled" if new else "repeated"

    def _observe_age(self, event: Event[Any]) -> None:
        age_s = time.time() - event.time.timestamp()
        delivery_metrics.DELIVERY_S.labels(self._group, event.topic).observe(max(0.0, age_s))

    def _once(self, session: Session, handler: Handler, event: Event[Any]) -> bool:
        if not inbox.once(session, self._group, event.id):
            return False
        handler(session, event)
        return True


def _alone(handler: Handler | BatchHandler) -> Handler:
    """Returns a handler of one event."""
    if isinstance(handler, BatchHandler):
        handle = handler.handle
        return lambda session, event: handle(session, [event])
    return handler
