"""Runs a consumer group's handlers: each event takes effect once, in order by key, whatever dies when.

For each record: decode; then, in one transaction, mark the inbox and let the handler make its change; later
commit the offset. A process that dies before the transaction's commit has done nothing; after it, the repeat
finds the mark; the offset only says how far to go back. What can go wrong, and what then happens:

- A type without handler (a newer producer's event) is skipped and counted.
- What can't be decoded, and what the handler refuses by InvalidEvent, is moved to `<topic>.dlq`, durably, before
  the offset passes it. Past a cap (`DeadLetterCap`) the consumer halts and raises an alarm instead: then the
  fault is more likely its own than the records'.
- Any other exception is taken for transient, a bug included: the partition is paused before this record and tried
  again, later and later, for as long as it takes. Order holds; other partitions go on.
- When the event log is away, the consumer leaves it and joins again.
- When a partition is lost, its uncommitted records go to the next owner, who finds their marks in the inbox.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from servicekit import backoff, delivery_metrics, inbox, topics
from servicekit.database import run_in_transaction, transaction
from servicekit.dead_letters import DeadLetterCap, DeadLetterCapReached, DeadLetterCount, dead_letter
from servicekit.eventlog.base import (
    Consumer,
    EventLog,
    EventLogUnavailable,
    Fenced,
    InRecord,
    Producer,
    Topic,
    TopicPartition,
)
from servicekit.events import Event, InvalidEvent, from_record, is_known

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)
_PROPAGATOR = TraceContextTextMapPropagator()

Handler = Callable[[Session, Event[Any]], None]
"""Makes the event's change through the session and nowhere else: the transaction may run more than once."""
Outcome = Literal["handled", "repeated", "skipped", "dead_lettered"]

_POLL_S = 0.5
_SLICE_S = 2.0
"""After this long a batch is cut: what is done is committed, and the group is given a chance to rebalance."""
_LAG_EVERY_S = 5.0
_PRUNE_EVERY_S = 3600.0


@dataclass(slots=True)
class _Retry:
    """A partition whose next record has failed `failures` times in a row; tried again at `at` (monotonic)."""

    failures: int
    at: float


class ConsumerRunner:
    """A member of a consumer group that handles events. One thread runs it."""

    def __init__(
        self,
        event_log: EventLog,
        engine: Engine | None,
        group: str,
        handlers: Mapping[str | Topic, Mapping[str, Handler]],
        *,
        cap: DeadLetterCap = DeadLetterCap(),  # noqa: B008 - frozen
    ) -> None:
        """`handlers`: by topic (a `Topic`, or the name of one in the registry), then by event type (full name).

        `engine` None is for a service without a database: there is no inbox, a handler may see an event
        more than once, and its session is bound to nothing (using it raises UnboundExecutionError).

        Raises ValueError for a topic that is not in the registry, and for a type that no imported generated
        module declares: its events would all be skipped.
        """
        self._event_log = event_log
        self._engine = engine
        self._group = group
        self._topics = [_topic(topic) for topic in handlers]
        self._handlers = {_topic(topic).name: dict(by_type) for topic, by_type in handlers.items()}
        self._count = DeadLetterCount(cap)
        self._retries: dict[TopicPartition, _Retry] = {}
        self._lag_at = self._pruned_at = 0.0
        self._halted = False
        if unknown := {name for types in self._handlers.values() for name in types if not is_known(name)}:
            raise ValueError(f"no imported module declares the event types {sorted(unknown)}")

    @property
    def halted(self) -> bool:
        """True once too many records were invalid: nothing is consumed until the process starts anew."""
        return self._halted

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set. Never raises: failures are logged, counted and waited out."""
        delivery_metrics.HALTED.labels(self._group).set(0)
        failures = 0
        while not stop.is_set():
            try:
                self._consume(stop)
                failures = 0
            except DeadLetterCapReached as error:
                # Ending the process would invite a restart, and with it another capful of dead letters.
                self._halted = True
                delivery_metrics.HALTED.labels(self._group).set(1)
                logger.critical("consumer %s halted, start it anew once mended: %s", self._group, error)
                stop.wait()
            except Exception:
                failures += 1
                logger.exception("consumer %s lost the event log, joining again", self._group)
                backoff.wait(stop, failures)

    def _consume(self, stop: threading.Event) -> None:
        """One membership in the group, until `stop` or an error."""
        self._event_log.ensure_topics(
            each for topic in self._topics for each in (topic, topic.dead_letters())
        )
        self._retries.clear()
        producer = self._event_log.producer()
        consumer = self._event_log.consumer(self._group, [topic.name for topic in self._topics])
        done: dict[TopicPartition, int] = {}
        try:
            while not stop.is_set():
                self._resume_due(consumer)
                try:
                    self._handle(consumer, producer, stop, consumer.poll(self._poll_s()), done)
                finally:
                    self._commit(consumer, done)
                self._keep_house()
        finally:
            consumer.close()
            producer.close()

    def _handle(
        self,
        consumer: Consumer,
        producer: Producer,
        stop: threading.Event,
        records: Iterable[InRecord],
        done: dict[TopicPartition, int],
    ) -> None:
        """Handle partition by partition; `done` gets the next offset of each after every record."""
        cut_at = time.monotonic() + _SLICE_S
        for partition, of_partition in groupby(records, key=lambda record: record.topic_partition):
            for record in of_partition:
                if stop.is_set() or time.monotonic() > cut_at:
                    consumer.seek(partition, record.offset)  # the rest comes again with the next poll
                    break
                try:
                    outcome = self._deliver(record, producer)
                except DeadLetterCapReached:
                    raise
                except Exception:
                    self._try_later(consumer, record)
                    break
                self._retries.pop(partition, None)
                done[partition] = record.offset + 1
                delivery_metrics.CONSUMED.labels(self._group, record.topic, outcome).inc()

    def _deliver(self, record: InRecord, producer: Producer) -> Outcome:
        """Let the record take effect, or move it aside."""
        by_type = self._handlers[record.topic]
        event_type = dict(record.headers).get("ce_type", b"").decode(errors="replace")
        if event_type and event_type not in by_type:
            return "skipped"
        try:
            event = from_record(record)
            outcome = self._take_effect(by_type[event.type], event)
        except InvalidEvent as error:
            self._count.check()
            producer.send([dead_letter(record, self._group, error)])
            self._count.invalid()
            logger.warning("dead letter from %s: %s", record.topic_partition, error)
            return "dead_lettered"
        self._count.valid()
        return outcome

    def _take_effect(self, handler: Handler, event: Event[Any]) -> Outcome:
        """Run the handler in the inbox transaction, as part of the trace that made the event."""
        parent = _PROPAGATOR.extract({"traceparent": event.traceparent} if event.traceparent else {})
        attributes = {
            "messaging.operation.type": "process",
            "messaging.destination.name": event.topic,
            "messaging.consumer.group.name": self._group,
            "messaging.message.id": event.id,
        }
        span = tracer.start_as_current_span(
            f"process {event.topic}", context=parent, kind=SpanKind.CONSUMER, attributes=attributes
        )
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

    def _try_later(self, consumer: Consumer, record: InRecord) -> None:
        """Pause the record's partition before the record; called while its exception is being handled."""
        partition = record.topic_partition
        known = self._retries.get(partition)
        failures = known.failures + 1 if known else 1
        delay_s = backoff.delay_s(failures)
        self._retries[partition] = _Retry(failures, time.monotonic() + delay_s)
        consumer.pause([partition])
        consumer.seek(partition, record.offset)
        delivery_metrics.RETRIES.labels(self._group, record.topic).inc()
        logger.exception(
            "%s of %s failed %d times, again in %.1f s", record.offset, partition, failures, delay_s
        )

    def _resume_due(self, consumer: Consumer) -> None:
        owned = consumer.assignment()
        now = time.monotonic()
        for partition, retry in list(self._retries.items()):
            if partition not in owned:
                del self._retries[partition]
            elif retry.at <= now:
                consumer.resume([partition])

    def _poll_s(self) -> float:
        """How long a poll may wait: no longer than until the next paused partition is due."""
        now = time.monotonic()
        due = [retry.at - now for retry in self._retries.values() if retry.at > now]
        return min([_POLL_S, *due])

    def _commit(self, consumer: Consumer, done: dict[TopicPartition, int]) -> None:
        """Commit and empty `done`; what can't be committed just now stays in it for the next round."""
        owned = consumer.assignment()
        offsets = {partition: offset for partition, offset in done.items() if partition in owned}
        try:
            if offsets:
                consumer.commit(offsets)
        except Fenced as error:
            logger.info("%s; its records come again there and have no effect", error)
        except EventLogUnavailable as error:
            logger.warning("offsets of %s wait: %s", self._group, error)
            return
        done.clear()

    def _keep_house(self) -> None:
        """Now and then: report the lag, forget inbox rows that can't be needed any more. May fail harmlessly."""
        now = time.monotonic()
        try:
            if now - self._lag_at >= _LAG_EVERY_S:
                self._lag_at = now
                self._report_lag()
            if self._engine is not None and now - self._pruned_at >= _PRUNE_EVERY_S:
                self._pruned_at = now
                self._prune_inbox(self._engine)
        except Exception:
            logger.warning("housekeeping of consumer %s failed", self._group, exc_info=True)

    def _report_lag(self) -> None:
        for topic in self._topics:
            for number, records in self._event_log.lag(self._group, topic.name).items():
                delivery_metrics.LAG.labels(self._group, topic.name, str(number)).set(records)

    def _prune_inbox(self, engine: Engine) -> None:
        finite = [topic.retention_hours for topic in self._topics if topic.retention_hours is not None]
        if len(finite) == len(self._topics):  # a topic kept for ever can be read again from its beginning
            with transaction(engine) as session:
                inbox.prune(session, self._group, older_than_hours=2 * max(finite))


def _topic(topic: str | Topic) -> Topic:
    if isinstance(topic, Topic):
        return topic
    if topic not in topics.BY_NAME:
        raise ValueError(f"topic {topic!r} is not in proto/topics")
    return topics.BY_NAME[topic]
