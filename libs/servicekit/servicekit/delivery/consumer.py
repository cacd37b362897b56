"""Runs the handlers of a consumer group: each event takes effect once, in order by key, even when processes are killed.

For each record, the consumer decodes the event, writes the inbox row and runs the handler in one transaction, and commits the
offset later. A process that dies before the transaction commits has had no effect. When it dies after that, the event is
delivered again and its inbox row is found; the offset only limits how many records are repeated. Failures are handled so:

- An event type without a handler (a newer producer's event) is skipped and counted. So is an event that an operator redrives
  for another group (`servicekit.delivery.redrive`).
- A record that cannot be decoded, or that the handler refuses with InvalidEvent, is moved durably to `<topic>.dlq` before its
  offset is committed. Beyond a cap (`DeadLetterCap`) the consumer halts and raises an alarm instead, because then the fault
  is more likely in the consumer than in the records.
- Any other exception, a bug included, counts as transient. The partition is paused before this record, and the record is
  retried with growing delays, without limit. The order is kept, and other partitions continue.
- A batch handler takes consecutive events of one type in one transaction, with their inbox rows. When it fails, the batch is
  rolled back and its events are handled one by one, so that only the event at fault is dead-lettered or retried.
- When the event log is down, the consumer leaves the group and joins it again.
- When a partition is lost, its uncommitted records go to the next owner, which finds their inbox rows.

Several workers share a member's partitions, and one worker at a time handles the records of a partition. The member holds the
records of one poll at most. In a round it polls, hands the records out by partition, waits until the workers have finished (or
an idle worker has waited long enough), drops the records that no worker has started, commits, and polls again. A partition
whose worker is still busy is paused; while all workers are busy, all partitions are paused. So a clean hand-over repeats at
most the records that workers are handling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Engine

from servicekit import retries
from servicekit.database import transaction
from servicekit.delivery import inbox
from servicekit.delivery import metrics as delivery_metrics
from servicekit.delivery._delivery import BatchHandler, Delivery, Handler
from servicekit.delivery._workers import Lane, Workers
from servicekit.delivery.dead_letters import DeadLetterCap, DeadLetterCapReached, DeadLetterCount, DeadLetters
from servicekit.eventlog import topics
from servicekit.eventlog.base import (
    MAX_POLL_INTERVAL_S,
    Consumer,
    EventLog,
    EventLogUnavailable,
    Fenced,
    InRecord,
    Topic,
    TopicPartition,
    UnknownTopic,
)
from servicekit.eventlog.events import is_known
from servicekit.heartbeats import Heartbeat

__all__ = ["BatchHandler", "ConsumerRunner", "Handler"]

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_POLL_BUSY_S = 0.1
"""Poll interval while a worker is busy: how long its partition waits at most after the worker has finished."""
_SLICE_S = 2.0
"""Longest time between two polls while workers are busy: then finished records are committed and the group can rebalance."""
_LAG_EVERY_S = 5.0
_PRUNE_EVERY_S = 3600.0


class HandlerStuck(Exception):
    """A handler has been busy with one record for longer than a member may go without polling."""


@dataclass(slots=True)
class _Retry:
    """A partition whose next record has failed `failures` times in a row. It is retried at `at` (monotonic)."""

    failures: int
    at: float


class ConsumerRunner:
    """A member of a consumer group that handles events. One thread runs it; it starts `workers` threads of its own."""

    def __init__(
        self,
        event_log: EventLog,
        engine: Engine | None,
        group: str,
        handlers: Mapping[str | Topic, Mapping[str, Handler | BatchHandler]],
        *,
        cap: DeadLetterCap = DeadLetterCap(),  # noqa: B008 - frozen
        workers: int = 1,
        handler_limit_s: float = MAX_POLL_INTERVAL_S,
    ) -> None:
        """`handlers`: by topic (a `Topic`, or the name of one in the registry), then by event type (full name).

        `engine` None is for a service without a database. Then there is no inbox, a handler may see an event more than
        once, and its session is unbound (using it raises UnboundExecutionError).

        `workers`: with more than one, handlers run in several threads at once, for different partitions.

        `handler_limit_s`: when a handler runs for longer than this, the member leaves the group, so that others get its
        partitions. It joins again when the handler returns.

        Raises ValueError for a topic that is not in the registry, and for a type that no imported generated module
        declares, because all of its events would be skipped.
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
    def group(self) -> str:
        """Name of the consumer group."""
        return self._group

    @property
    def handled(self) -> Mapping[str, Sequence[str]]:
        """Handled event types, by topic."""
        return {topic: sorted(by_type) for topic, by_type in self._handlers.items()}

    @property
    def halted(self) -> bool:
        """Whether too many records were invalid. Then nothing is consumed until the process restarts."""
        return self._halted

    def run(self, stop: threading.Event) -> None:
        """Consumes until `stop` is set. Never raises: it logs and counts failures, and retries."""
        delivery_metrics.HALTED.labels(self._group).set(0)
        heartbeat = Heartbeat(f"consumer {self._group}")
        try:
            self._run(stop, heartbeat)
        finally:
            heartbeat.close()

    def _run(self, stop: threading.Event, heartbeat: Heartbeat) -> None:
        failures = 0
        while not stop.is_set():
            try:
                self._consume(stop, heartbeat)
                failures = 0
            except DeadLetterCapReached as error:
                # A process that ended would be restarted, and would dead-letter as many records again.
                self._halted = True
                delivery_metrics.HALTED.labels(self._group).set(1)
                logger.critical("consumer %s halted; restart it after the fix: %s", self._group, error)
                stop.wait()  # waits: until an operator restarts the service; it is halted, and says so
            except Exception as error:
                failures += 1
                heartbeat.failed(error)
                self._lag_at = 0.0  # read again at once: it says whether the event log answers
                logger.exception("consumer %s lost the event log, joining again", self._group)
                stop.wait(retries.delay_s(failures))

    def _consume(self, stop: threading.Event, heartbeat: Heartbeat) -> None:
        """One membership in the group, until `stop` or an error."""
        with heartbeat.step():
            self._event_log.ensure_topics(
                each for topic in self._topics for each in (topic, topic.dead_letters())
            )
            producer = self._event_log.producer()
            consumer = self._event_log.consumer(self._group, [topic.name for topic in self._topics])
        dead_letters = DeadLetters(producer, self._group, self._count)
        delivery = Delivery(self._event_log.system, self._engine, self._group, self._handlers, dead_letters)
        workers = Workers(
            self._group, self._worker_count, deliver=delivery.deliver, together=delivery.together, stop=stop
        )
        membership = _Membership(self._group, self._worker_count, self._handler_limit_s, consumer, workers)
        try:
            while not stop.is_set():
                with heartbeat.step():
                    membership.round()
                    self._watch_lag(heartbeat)
                    self._housekeep()
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

    def _watch_lag(self, heartbeat: Heartbeat) -> None:
        """Reports the lag at its interval, and whether the event log answers: a poll without records does not say so.

        Raises UnknownTopic: the brokers are others than before; a new membership creates the topics.
        """
        now = time.monotonic()
        if now - self._lag_at < _LAG_EVERY_S:
            return
        self._lag_at = now
        try:
            self._report_lag()
        except UnknownTopic:
            raise
        except Exception as error:
            heartbeat.failed(error)
            logger.warning("consumer %s could not read its lag", self._group, exc_info=True)
        else:
            heartbeat.succeeded()

    def _housekeep(self) -> None:
        """Deletes old inbox rows at its interval. A failure is logged and does no harm."""
        now = time.monotonic()
        if self._engine is None or now - self._pruned_at < _PRUNE_EVERY_S:
            return
        self._pruned_at = now
        try:
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
        if len(finite) == len(self._topics):  # a topic without retention can be read again from its beginning
            with transaction(engine) as session:
                inbox.prune(session, self._group, older_than_hours=2 * max(finite))


class _Membership:
    """One membership in the group: records being handled, offsets to commit, and retries. Used by the runner's thread."""

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
        """Polls, and lets the workers handle the records. Raises DeadLetterCapReached, HandlerStuck and EventLogError."""
        self._hold_back()
        self._workers.wait(self._hand_out(self._consumer.poll(self._poll_s())), _SLICE_S)
        self._settle()
        now = time.monotonic()
        if any(now - lane.busy_since > self._handler_limit_s for lane in self._lanes.values()):
            raise HandlerStuck(f"a handler of {self._group} has not returned for {self._handler_limit_s} s")

    def finish(self) -> None:
        """Drops the records that no worker has started, waits for the others, and commits."""
        for lane in self._lanes.values():
            self._workers.cut(lane)
        self._workers.wait_for_all(list(self._lanes.values()))
        self._settle()

    def _poll_s(self) -> float:
        """Returns how long a poll may wait: at most until the next paused partition is due."""
        now = time.monotonic()
        due = [retry.at - now for retry in self._retries.values() if retry.at > now]
        return min([_POLL_BUSY_S if self._lanes else _POLL_S, *due])

    def _hold_back(self) -> None:
        """Pauses all partitions while no worker is free, else those that a worker handles and those that wait for a retry."""
        owned = self._consumer.assignment()
        self._retries = {at: retry for at, retry in self._retries.items() if at in owned}
        now = time.monotonic()
        held = self._lanes.keys() | {at for at, retry in self._retries.items() if retry.at > now}
        if len(self._lanes) >= self._worker_count:
            held = set(owned)
        self._consumer.pause(held)
        self._consumer.resume(owned - held)

    def _hand_out(self, records: Iterable[InRecord]) -> list[Lane]:
        """Gives each partition's records to the workers as a lane, and returns the new lanes."""
        owned = self._consumer.assignment()
        self._done = {partition: offset for partition, offset in self._done.items() if partition in owned}
        for lane in self._lanes.values():
            lane.lost = lane.lost or lane.partition not in owned
        fresh: list[Lane] = []
        for partition, of_partition in groupby(records, key=lambda record: record.topic_partition):
            batch = list(of_partition)
            if known := self._lanes.get(partition):
                # The partition was paused, so it was lost and regained while a worker still handles one of its records.
                known.lost = True
                self._consumer.seek(partition, batch[0].offset)
                continue
            fresh.append(Lane(partition, batch))
        self._lanes.update({lane.partition: lane for lane in fresh})
        self._workers.hand_out(fresh)
        return fresh

    def _settle(self) -> None:
        """Records the progress of every lane and commits. Raises DeadLetterCapReached."""
        reached: DeadLetterCapReached | None = None
        for lane in list(self._lanes.values()):
            rest = self._workers.cut(lane)
            finished = lane.finished  # read once: its worker may finish it meanwhile
            if finished:
                del self._lanes[lane.partition]
            if lane.lost:
                continue
            if rest is not None:
                self._consumer.seek(lane.partition, rest)  # a later poll returns it again
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
        """Schedules a retry of the record. Its partition is paused until then."""
        partition = record.topic_partition
        known = self._retries.get(partition)
        failures = known.failures + 1 if known else 1
        delay_s = retries.delay_s(failures)
        self._retries[partition] = _Retry(failures, time.monotonic() + delay_s)
        self._consumer.seek(partition, record.offset)
        delivery_metrics.RETRIES.labels(self._group, record.topic).inc()
        logger.error(
            "%s of %s failed %d times, again in %.1f s", record.offset, partition, failures, delay_s,
            exc_info=error,
        )  # fmt: skip

    def _commit(self) -> None:
        """Commits the offsets in `_done` and clears it. Offsets that cannot be committed now stay for the next round."""
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
        """Commits the other partitions' offsets although one partition is lost: there may be no later record that would."""
        for partition, offset in self._done.items():
            try:
                self._consumer.commit({partition: offset})
            except Fenced as error:
                logger.info("%s; its records are delivered again there and have no effect", error)
            except EventLogUnavailable as error:
                logger.warning("offset of %s is not committed: %s", partition, error)


def _topic(topic: str | Topic) -> Topic:
    if isinstance(topic, Topic):
        return topic
    if topic not in topics.BY_NAME:
        raise ValueError(f"topic {topic!r} is not in proto/topics")
    return topics.BY_NAME[topic]
