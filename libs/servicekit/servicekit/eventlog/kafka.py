"""The event log on Apache Kafka, with kafka-python.

This module adds what the contract in `base` needs beyond the client:

- The client's `send` queues without bound, and blocks until it has metadata. Here the records of a call are sent in waves of at
  most `_WAVE_BYTES`; each wave is flushed, and the future of each record is checked, before the next one. With the long linger
  a wave is one batch per partition, which Kafka writes completely or not at all, so a failed call has written a prefix.
- The idempotent producer with acks=all prevents that retries duplicate or reorder a batch. Kafka transactions are not used: the
  inbox gives the exactly-once effect (docs/decisions).
- Only the caller commits offsets. Aborted records of other producers stay hidden (read_committed).
- The member's own assignment is checked before a commit, because Kafka would let a member commit for a partition that a
  cooperative rebalance has taken from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from servicekit import crash
from servicekit.eventlog._kafka_clients import opened
from servicekit.eventlog._kafka_consumer import RECONNECT_MAX_MS, KafkaGroupConsumer, unavailable
from servicekit.eventlog.base import (
    DEFAULT_SESSION_TIMEOUT_S,
    OutRecord,
    Topic,
    UnknownTopic,
    check_sizes,
)

crash.primitive(__name__)
_WAVE_BYTES = 512 * 1024
_WAVE_RECORDS = 5_000
_BATCH_BYTES = 1_000_000  # a wave with all framing fits, so it is never split
_LINGER_MS = 500  # only an upper bound: the flush at a wave's end sends at once

_REQUEST_TIMEOUT_MS = 7_000
_DELIVERY_TIMEOUT_MS = 15_000
_METADATA_TIMEOUT_MS = 5_000


class KafkaEventLog:
    """An `EventLog` on the brokers `servers` ("host:port"). Connects at first use."""

    system = "kafka"

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = list(servers)
        self._lock = threading.Lock()
        self._admin: Any = None
        self._partitions: dict[str, list[int]] = {}
        # Strong references: kafka-python's own thread would keep the membership of a collected consumer alive, and its
        # whole group would wait for it at the next rebalance, up to MAX_POLL_INTERVAL_S.
        self._open: set[KafkaLogProducer | KafkaGroupConsumer] = set()

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Creates missing topics, with the brokers' default replication; does not change existing ones."""
        required = {topic.name: topic for topic in topics}
        if not required:
            return
        with self._administering() as admin:
            missing = required.keys() - set(admin.list_topics())
            if not missing:
                return
            made = admin.create_topics(
                {name: _creation(required[name]) for name in missing}, raise_errors=False
            )
            for answer in made["topics"]:
                error = for_code(answer["error_code"])
                if answer["error_code"] and error is not TopicAlreadyExistsError:
                    raise error(f"{answer['name']}: {answer.get('error_message')}")
            admin.wait_for_topics(list(missing))

    def producer(self) -> KafkaLogProducer:
        """Returns a producer, which connects at its first send."""
        producer = KafkaLogProducer(self._servers, self, self._open.discard)
        self._open.add(producer)
        return producer

    def consumer(
        self, group: str, topics: Collection[str], *, session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S
    ) -> KafkaGroupConsumer:
        """Returns a member of `group`, which connects and joins at its first poll."""
        consumer = KafkaGroupConsumer(
            self._servers,
            group,
            sorted(topics),
            session_timeout_s=session_timeout_s,
            require=self.require,
            closed=self._open.discard,
        )
        self._open.add(consumer)
        return consumer

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Returns the offset of the next record, by partition."""
        return self._offsets(topic, OffsetSpec.LATEST)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Returns the group's committed offsets, by partition."""
        partitions = [KafkaTopicPartition(topic, number) for number in self.require(topic)]
        with self._administering() as admin:
            found = admin.list_group_offsets({group: partitions})[group]
        # -1 means that no offset is committed.
        return {at.partition: known.offset for at, known in sorted(found.items()) if known.offset >= 0}

    def lag(self, group: str, topic: str) -> dict[int, int]:
        """Returns the number of kept records that are not yet committed, by partition."""
        committed = self.committed(group, topic)
        first = self._offsets(topic, OffsetSpec.EARLIEST)
        end = self._offsets(topic, OffsetSpec.LATEST)
        return {number: end[number] - max(first[number], committed.get(number, 0)) for number in end}

    def close(self) -> None:
        """Closes the log with its producers and consumers."""
        for part in list(self._open):
            part.close()
        with self._lock:
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    def require(self, topic: str) -> list[int]:
        """Returns the partitions of a topic. Raises UnknownTopic; a client that sends without this check waits for metadata."""
        known = self._partitions.get(topic)
        if known is None:
            with self._administering() as admin:
                (found,) = admin.describe_topics([topic])
            if for_code(found["error_code"]) is UnknownTopicOrPartitionError:
                raise UnknownTopic(topic)
            known = self._partitions[topic] = sorted(part["partition_index"] for part in found["partitions"])
        return known

    def forget_partitions(self) -> None:
        """Makes `require` ask again: after a failure the brokers may be others, without these topics."""
        self._partitions.clear()

    def _offsets(self, topic: str, spec: Any) -> dict[int, int]:
        specs = {KafkaTopicPartition(topic, number): spec for number in self.require(topic)}
        with self._administering() as admin:
            found = admin.list_partition_offsets(specs)
        return {at.partition: known.offset for at, known in sorted(found.items())}

    @contextmanager
    def _administering(self) -> Iterator[Any]:
        """Yields the admin client to one thread at a time. Replaces it after a failure."""
        with self._lock, translated(self._servers):
            if self._admin is None:
                self._admin = opened(
                    KafkaAdminClient,
                    bootstrap_servers=self._servers,
                    request_timeout_ms=_REQUEST_TIMEOUT_MS,
                    bootstrap_timeout_ms=_METADATA_TIMEOUT_MS,
                    reconnect_backoff_max_ms=RECONNECT_MAX_MS,
                )
            try:
                yield self._admin
            except KafkaError:
                self.forget_partitions()
                broken, self._admin = self._admin, None
                broken.close()
                raise


class KafkaLogProducer:
    """Sends the records of each call in flushed waves; see the module's docstring."""

    def __init__(
        self, servers: list[str], log: KafkaEventLog, closed: Callable[[KafkaLogProducer], None]
    ) -> None:
        self._servers = servers
        self._log = log
        self._closed = closed
        self._client: Any = None

    def send(self, records: Sequence[OutRecord]) -> None:
        """Appends all records, and returns when all in-sync replicas have them."""
        check_sizes(records)
        for topic in {record.topic for record in records}:
            self._log.require(topic)
        with translated(self._servers):
            if self._client is None:
                self._client = self._connect()
            try:
                for wave in _waves(records):
                    with crash.step("kafka send"):
                        self._send_wave(wave)
            except KafkaError:
                self._log.forget_partitions()
                self._disconnect()  # its state is unknown: the next call starts with a new producer id
                raise

    def close(self) -> None:
        """Closes the connections."""
        self._disconnect()
        self._closed(self)

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with translated(self._servers):
                client.close(timeout=5)

    def _connect(self) -> Any:
        return opened(
            KafkaProducer,
            bootstrap_servers=self._servers,
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            linger_ms=_LINGER_MS,
            batch_size=_BATCH_BYTES,
            max_request_size=_BATCH_BYTES + 40_000,
            max_block_ms=_METADATA_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
            bootstrap_timeout_ms=_METADATA_TIMEOUT_MS,
            reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            metrics_enabled=False,
        )

    def _send_wave(self, wave: Sequence[OutRecord]) -> None:
        futures = [
            self._client.send(record.topic, key=record.key, value=record.value, headers=list(record.headers))
            for record in wave
        ]
        # Every future ends within the delivery timeout; this timeout is for a client whose thread has died.
        self._client.flush(timeout=2 * _DELIVERY_TIMEOUT_MS / 1000)
        for future in futures:
            future.get(timeout=0)


def _waves(records: Sequence[OutRecord]) -> Iterator[Sequence[OutRecord]]:
    """Yields consecutive slices of at most `_WAVE_BYTES` and `_WAVE_RECORDS`, or of one larger record."""
    start = size = 0
    for i, record in enumerate(records):
        if i > start and (size + record.size() > _WAVE_BYTES or i - start >= _WAVE_RECORDS):
            yield records[start:i]
            start, size = i, 0
        size += record.size()
    if start < len(records):
        yield records[start:]


def _creation(topic: Topic) -> dict[str, Any]:
    retention_ms = -1 if topic.retention_hours is None else topic.retention_hours * 3_600_000
    return {"num_partitions": topic.partitions, "configs": {"retention.ms": str(retention_ms)}}


@contextmanager
def translated(servers: Sequence[str]) -> Iterator[None]:
    """Raises the client's errors as EventLogUnavailable: permanent errors were excluded before."""
    try:
        yield
    except KafkaError as error:
        raise unavailable(servers, error) from error
