"""Runs a consumer group's handlers: each event takes effect once, in order by key, whatever dies when.

For each record: decode; then, in one transaction, mark the inbox and let the handler make its change; later
commit the offset. A process that dies before the transaction's commit has done nothing; after it, the repeat
finds the mark; the offset only says how far to go back. What can go wrong, and what then happens:

- A type without handler (a newer producer's event) is skipped and counted; so is what an operator replays for
  another group (`servicekit.replay`).
- What can't be decoded, and what the handler refuses by InvalidEvent, is moved to `<topic>.dlq`, durably, before
  the offset passes it. Past a cap (`DeadLetterCap`) the consumer halts and raises an alarm instead: then the
  fault is more likely its own than the records'.
- Any other exception is taken for transient, a bug included: the partition is paused before this record and tried
  again, later and later, for as long as it takes. Order holds; other partitions go on.
- When the event log is away, the consumer leaves it and joins again.
- When a partition is lost, its uncommitted records go to the next owner, who finds their marks in the inbox.

Several workers share a member's partitions: each partition's records are handled by one of them at a time. One
poll's records are all that is ever in hand. A round is: poll, hand out by partition, wait until the workers are
through (or one has waited for others long enough), let go of what no worker has come to, commit, poll again. A
partition whose worker is still at a record is paused, and while all workers are busy all partitions are. So a clean
hand-over repeats nothing, except a record that was in a worker's hands.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Engine

from servicekit import backoff, delivery_metrics, inbox, topics
from servicekit._delivery import Delivery, Handler
from servicekit._workers import Lane, Workers
from servicekit.database import transaction
from servicekit.dead_letters import DeadLetterCap, DeadLetterCapReached, DeadLetterCount, DeadLetters
from servicekit.eventlog.base import (
    MAX_POLL_INTERVAL_S,
    Consumer,
    EventLog,
    EventLogUnavailable,
    Fenced,
    InRecord,
    Topic,
    TopicPartition,
)
from servicekit.events import is_known

__all__ = ["ConsumerRunner", "Handler"]

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_POLL_BUSY_S = 0.1
"""While a worker is at a record: how much longer than it its partition waits at most."""
_SLICE_S = 2.0
"""After this long a batch is cut: what is done is committed, and the group is given a chance to rebalance."""
_LAG_EVERY_S = 5.0
_PRUNE_EVERY_S = 3600.0


class HandlerStuck(Exception):
    """A handler has been at one record for longer than a member may be silent."""


@dataclass(slots=True)
class _Retry:
    """A partition whose next record has failed `failures` times in a row; tried again at `at` (monotonic)."""

    failures: int
    at: float


class ConsumerRunner:
    """A member of a consumer group that handles events. One thread runs it, with `workers` of its own."""

    def __init__(
        self,
        event_log: EventLog,
        engine: Engine | None,
        group: str,
        handlers: Mapping[str | Topic, Mapping[str, Handler]],
        *,
        cap: DeadLetterCap = DeadLetterCap(),  # noqa: B008 - frozen
        workers: int = 1,
        handler_limit_s: float = MAX_POLL_INTERVAL_S,
    ) -> None:
        """`handlers`: by topic (a `Topic`, or the name of one in the registry), then by event type (full name).

        `engine` None is for a service without a database: there is no inbox, a handler may see an event
        more than once, and its session is bound to nothing (using it raises UnboundExecutionError).

        `workers`: with more than one, handlers run in several threads at once, for different partitions.

        `handler_limit_s`: a member one of whose handlers has not returned for so long leaves the group, so that
        others get its partitions, and joins again when the handler returns.

        Raises ValueError for a topic that is not in the registry, and for a type that no imported generated
        module declares: its events would all be skipped.
        """
        if workers < 1:
            raise ValueError(f"a consumer has at least 1 worker, not {workers}")
        self._event_log = event_log
        self._engine = engine
        self._group = group
        self._topics = [_topic(topic) for topic in handlers]
        self._handlers = {_topic(topic).name: dict(by_type) for topic, by_type in handlers.items()}
        self._count = DeadLetterCount(cap)
        self._worker_count = workers
        self._handler_limit_s = handler_limit_s
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
        producer = self._event_log.producer()
        consumer = self._event_log.consumer(self._group, [topic.name for topic in self._topics])
        dead_letters = DeadLetters(producer, self._group, self._count)
        delivery = Delivery(self._event_log.system, self._engine, self._group, self._handlers, dead_letters)
        workers = Workers(self._group, self._worker_count, delivery.deliver, stop)
        membership = _Membership(self._group, self._worker_count, self._handler_limit_s, consumer, workers)
        try:
            while not stop.is_set():
                membership.round()
                self._keep_house()
            membership.finish()
        except HandlerStuck:
            consumer.close()  # first: others get its partitions while this thread waits for the handler
            raise
        except Exception:
            membership.finish()
            raise
        finally:
            workers.close()
            consumer.close()
            producer.close()

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
            dead = topic.dead_letters().name
            delivery_metrics.DEAD_LETTERS.labels(dead).set(sum(self._event_log.end_offsets(dead).values()))

    def _prune_inbox(self, engine: Engine) -> None:
        finite = [topic.retention_hours for topic in self._topics if topic.retention_hours is not None]
        if len(finite) == len(self._topics):  # a topic kept for ever can be read again from its beginning
            with transaction(engine) as session:
                inbox.prune(session, self._group, older_than_hours=2 * max(finite))


class _Membership:
    """One membership in the group: what is in hand, what is done, what waits. Used by the runner's thread."""

    def __init__(
        self, group: str, worker_count: int, handler_limit_s: float, consumer: Consumer, workers: Workers
    ) -> None:
        self._group = group
        self._worker_count = worker_count
        self._handler_limit_s = handler_limit_s
        self._consumer = consumer
        self._workers = workers
        self._lanes: dict[TopicPartition, Lane] = {}
        self._done: dict[TopicPartition, int] = {}
        self._retries: dict[TopicPartition, _Retry] = {}

    def round(self) -> None:
        """Poll, and let the workers handle what came. Raises DeadLetterCapReached, HandlerStuck and the event log's."""
        self._hold_back()
        self._workers.wait(self._hand_out(self._consumer.poll(self._poll_s())), _SLICE_S)
        self._settle()
        now = time.monotonic()
        if any(now - lane.busy_since > self._handler_limit_s for lane in self._lanes.values()):
            raise HandlerStuck(f"a handler of {self._group} has not returned for {self._handler_limit_s} s")

    def finish(self) -> None:
        """Let go of what no worker has come to, wait for what one has, commit."""
        for lane in self._lanes.values():
            self._workers.cut(lane)
        self._workers.wait_for_all(list(self._lanes.values()))
        self._settle()

    def _poll_s(self) -> float:
        """How long a poll may wait: no longer than until the next paused partition is due."""
        now = time.monotonic()
        due = [retry.at - now for retry in self._retries.values() if retry.at > now]
        return min([_POLL_BUSY_S if self._lanes else _POLL_S, *due])

    def _hold_back(self) -> None:
        """Pause what can't be handled now: all when no worker is free, else what one is at or what failed before."""
        owned = self._consumer.assignment()
        self._retries = {at: retry for at, retry in self._retries.items() if at in owned}
        now = time.monotonic()
        held = self._lanes.keys() | {at for at, retry in self._retries.items() if retry.at > now}
        if len(self._lanes) >= self._worker_count:
            held = set(owned)
        self._consumer.pause(held)
        self._consumer.resume(owned - held)

    def _hand_out(self, records: Iterable[InRecord]) -> list[Lane]:
        """Give each partition's records to the workers; returns the lanes they now have."""
        owned = self._consumer.assignment()
        self._done = {partition: offset for partition, offset in self._done.items() if partition in owned}
        for lane in self._lanes.values():
            lane.lost = lane.lost or lane.partition not in owned
        fresh: list[Lane] = []
        for partition, of_partition in groupby(records, key=lambda record: record.topic_partition):
            batch = list(of_partition)
            if known := self._lanes.get(partition):
                # It was paused: so the partition was lost and came back while a worker is still at a record of it.
                known.lost = True
                self._consumer.seek(partition, batch[0].offset)
                continue
            fresh.append(Lane(partition, batch))
        self._lanes.update({lane.partition: lane for lane in fresh})
        self._workers.hand_out(fresh)
        return fresh

    def _settle(self) -> None:
        """Take stock of every lane and commit. Raises DeadLetterCapReached."""
        reached: DeadLetterCapReached | None = None
        for lane in list(self._lanes.values()):
            rest = self._workers.cut(lane)
            finished = lane.finished  # once: its worker may finish it while this thread looks
            if finished:
                del self._lanes[lane.partition]
            if lane.lost:
                continue
            if rest is not None:
                self._consumer.seek(lane.partition, rest)  # it comes again with a later poll
            done = lane.next_offset
            if done is not None and done != lane.settled:
                lane.settled = self._done[lane.partition] = done
                self._retries.pop(lane.partition, None)
            if finished and lane.failure is not None:
                if isinstance(lane.failure[1], DeadLetterCapReached):
                    reached = lane.failure[1]
                self._try_later(*lane.failure)
        self._commit()
        if reached is not None:
            raise reached

    def _try_later(self, record: InRecord, error: Exception) -> None:
        """Come back to the record after a while; its partition is paused until then."""
        partition = record.topic_partition
        known = self._retries.get(partition)
        failures = known.failures + 1 if known else 1
        delay_s = backoff.delay_s(failures)
        self._retries[partition] = _Retry(failures, time.monotonic() + delay_s)
        self._consumer.seek(partition, record.offset)
        delivery_metrics.RETRIES.labels(self._group, record.topic).inc()
        logger.error(
            "%s of %s failed %d times, again in %.1f s", record.offset, partition, failures, delay_s,
            exc_info=error,
        )  # fmt: skip

    def _commit(self) -> None:
        """Commit and empty `done`; what can't be committed just now stays in it for the next round."""
        try:
            if self._done:
                self._consumer.commit(self._done)
        except Fenced:
            self._commit_one_by_one()
        except EventLogUnavailable as error:
            logger.warning("offsets of %s wait: %s", self._group, error)
            return
        self._done.clear()

    def _commit_one_by_one(self) -> None:
        """A lost partition must not keep the others' offsets back: no later record may come to bring them along."""
        for partition, offset in self._done.items():
            try:
                self._consumer.commit({partition: offset})
            except Fenced as error:
                logger.info("%s; its records come again there and have no effect", error)
            except EventLogUnavailable as error:
                logger.warning("offset of %s is not committed: %s", partition, error)


def _topic(topic: str | Topic) -> Topic:
    if isinstance(topic, Topic):
        return topic
    if topic not in topics.BY_NAME:
        raise ValueError(f"topic {topic!r} is not in proto/topics")
    return topics.BY_NAME[topic]
