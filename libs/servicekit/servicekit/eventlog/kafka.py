"""The event log on Apache Kafka, by kafka-python.

What the client leaves open is closed here, so that the contract of `base` holds:

- `send` of the client queues without bound and blocks for metadata. Here a call goes out in waves of at most
  `_WAVE_BYTES`; each wave is flushed and every record's future looked at before the next. The long linger
  makes a wave one batch a partition, which Kafka writes whole or not at all: so a failed call leaves a
  prefix.
- The idempotent producer and acks=all keep retries of a batch from doubling or reordering it. There are no
Kafka
  transactions: exactly-once effect is the inbox's (docs/decisions).
- Offsets are committed by the caller only; aborted records of other producers stay hidden (read_committed).
- The member's own assignment is checked before a commit: Kafka would let a live member commit for a
partition that
  a cooperative rebalance has taken from it.
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
from servicekit.eventlog._kafka_consumer import KafkaGroupConsumer
from servicekit.eventlog.base import (
    DEFAULT_SESSION_TIMEOUT_S,
    EventLogUnavailable,
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
        # Held, not only watched: kafka-python's own thread keeps a forgotten member's membership alive, and its whole
        # group waits for it at the next rebalance, up to MAX_POLL_INTERVAL_S.
        self._open: set[KafkaLogProducer | KafkaGroupConsumer] = set()

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Make the topics that are missing, with the brokers' default replication; others are left as they are."""
        wanted = {topic.name: topic for topic in topics}
        if not wanted:
            return
        with self._administering() as admin:
            missing = wanted.keys() - set(admin.list_topics())
            if not missing:
                return
            made = admin.create_topics(
                {name: _creation(wanted[name]) for name in missing}, raise_errors=False
            )
            for answer in made["topics"]:
                error = for_code(answer["error_code"])
                if answer["error_code"] and error is not TopicAlreadyExistsError:
                    raise error(f"{answer['name']}: {answer.get('error_message')}")
            admin.wait_for_topics(list(missing))

    def producer(self) -> KafkaLogProducer:
        """A producer; connects at its first send."""
        producer = KafkaLogProducer(self._servers, self, self._open.discard)
        self._open.add(producer)
        return producer

    def consumer(
        self, group: str, topics: Collection[str], *, session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S
    ) -> KafkaGroupConsumer:
        """A member of `group`; connects and joins at its first poll."""
        consumer = KafkaGroupConsumer(
            self._servers, group, sorted(topics), session_timeout_s, self.require, self._open.discard
        )
        self._open.add(consumer)
        return consumer

    def end_offsets(self, topic: str) -> dict[int, int]:
        """By partition, the offset the next record will get."""
        return self._offsets(topic, OffsetSpec.LATEST)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """By partition, the group's committed offset."""
        partitions = [KafkaTopicPartition(topic, number) for number in self.require(topic)]
        with self._administering() as admin:
            found = admin.list_group_offsets({group: partitions})[group]
        # -1 says: none committed.
        return {at.partition: known.offset for at, known in sorted(found.items()) if known.offset >= 0}

    def lag(self, group: str, topic: str) -> dict[int, int]:
        """By partition, what is kept and not yet committed."""
        committed = self.committed(group, topic)
        first = self._offsets(topic, OffsetSpec.EARLIEST)
        end = self._offsets(topic, OffsetSpec.LATEST)
        return {number: end[number] - max(first[number], committed.get(number, 0)) for number in end}

    def close(self) -> None:
        """Close the log with its producers and consumers."""
        for part in list(self._open):
            part.close()
        with self._lock:
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    def require(self, topic: str) -> list[int]:
        """The partitions of a topic. Raises UnknownTopic. A client that sends blindly would wait for metadata."""
        if topic not in self._partitions:
            with self._administering() as admin:
                (found,) = admin.describe_topics([topic])
            if for_code(found["error_code"]) is UnknownTopicOrPartitionError:
                raise UnknownTopic(topic)
            self._partitions[topic] = sorted(part["partition_index"] for part in found["partitions"])
        return self._partitions[topic]

    def _offsets(self, topic: str, spec: Any) -> dict[int, int]:
        wanted = {KafkaTopicPartition(topic, number): spec for number in self.require(topic)}
        with self._administering() as admin:
            found = admin.list_partition_offsets(wanted)
        return {at.partition: known.offset for at, known in sorted(found.items())}

    @contextmanager
    def _administering(self) -> Iterator[Any]:
        """The one admin client, for one thread at a time; a fresh one after a failure."""
        with self._lock, translated():
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    bootstrap_servers=self._servers,
                    request_timeout_ms=_REQUEST_TIMEOUT_MS,
                    bootstrap_timeout_ms=_METADATA_TIMEOUT_MS,
                )
            try:
                yield self._admin
            except KafkaError:
                broken, self._admin = self._admin, None
                broken.close()
                raise


class KafkaLogProducer:
    """Sends each call in flushed waves; see the module's docstring."""

    def __init__(
        self, servers: list[str], log: KafkaEventLog, closed: Callable[[KafkaLogProducer], None]
    ) -> None:
        self._servers = servers
        self._log = log
        self._closed = closed
        self._client: Any = None

    def send(self, records: Sequence[OutRecord]) -> None:
        """Append all; returns when all in-sync replicas have them."""
        check_sizes(records)
        for topic in {record.topic for record in records}:
            self._log.require(topic)
        with translated():
            if self._client is None:
                self._client = self._connect()
            try:
                for wave in _waves(records):
                    with crash.step("kafka send"):
                        self._send_wave(wave)
            except KafkaError:
                self._disconnect()  # whatever state it is in: the next call starts with a new producer id
                raise

    def close(self) -> None:
        """Close the connections, for good."""
        self._disconnect()
        self._closed(self)

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with translated():
                client.close(timeout=5)

    def _connect(self) -> Any:
        return KafkaProducer(
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
            metrics_enabled=False,
        )

    def _send_wave(self, wave: Sequence[OutRecord]) -> None:
        futures = [
            self._client.send(record.topic, key=record.key, value=record.value, headers=list(record.headers))
            for record in wave
        ]
        # Every future ends by itself within the delivery timeout; this one is for a client that has lost
        # its thread.
        self._client.flush(timeout=2 * _DELIVERY_TIMEOUT_MS / 1000)
        for future in futures:
            future.get(timeout=0)


def _waves(records: Sequence[OutRecord]) -> Iterator[Sequence[OutRecord]]:
    """Consecutive slices of at most `_WAVE_BYTES` and `_WAVE_RECORDS`, or of one larger record."""
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
def translated() -> Iterator[None]:
    """The client's errors as EventLogUnavailable: what is not transient was checked before."""
    try:
        yield
    except KafkaError as error:
        raise EventLogUnavailable(f"kafka: {type(error).__name__}: {error}") from error
