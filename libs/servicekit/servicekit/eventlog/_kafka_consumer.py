"""A member of a consumer group on Kafka.

kafka-python 3.0.12 discards a join that completes between two polls and joins again, which makes every member join again. So
a member whose group is rebalancing stays in one poll until its join is complete, for at most `_JOIN_S`. The problem is then
rare, and the next join repairs it. Several members that one thread polls in turns may never settle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as KafkaTopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    KafkaError,
    UnknownMemberIdError,
)

from servicekit import crash
from servicekit.eventlog._kafka_clients import opened
from servicekit.eventlog.base import (
    MAX_POLL_INTERVAL_S,
    EventLogUnavailable,
    Fenced,
    InRecord,
    TopicPartition,
)

crash.primitive(__name__)
_COMMIT_TIMEOUT_MS = 7_000
_REQUEST_TIMEOUT_MS = 7_000
_BOOTSTRAP_MS = 5_000
RECONNECT_MAX_MS = 2_000
"""Longest pause between attempts to reach a broker: the client's default would be 30 s after the fault."""
_JOIN_S = 2.0
_HEARTBEAT_MS = 1_000
_LOST_MEMBERSHIP = (CommitFailedError, FencedInstanceIdError, IllegalGenerationError, UnknownMemberIdError)


class KafkaGroupConsumer:
    """A member of a consumer group; see `base.Consumer`."""

    def __init__(
        self,
        servers: list[str],
        group: str,
        topics: list[str],
        *,
        session_timeout_s: float,
        require: Callable[[str], object],
        closed: Callable[[KafkaGroupConsumer], None],
    ) -> None:
        """`require` raises UnknownTopic for a topic that does not exist; `closed` is called when this consumer is closed."""
        self._servers = servers
        self._group = group
        self._topics = topics
        self._session_timeout_ms = int(session_timeout_s * 1000)
        self._require = require
        self._closed = closed
        self._client: Any = None

    def poll(self, timeout_s: float, max_records: int = 500) -> list[InRecord]:
        """Returns records of the owned, unpaused partitions."""
        try:
            if self._client is None:
                for topic in self._topics:
                    self._require(topic)
                self._client = self._connect()
            patience_s = max(timeout_s, _JOIN_S) if self._is_joining() else timeout_s
            by_partition = self._client.poll(
                timeout_ms=max(0, int(patience_s * 1000)), max_records=max_records
            )
        except KafkaError as error:
            raise unavailable(self._servers, error) from error
        return [
            InRecord(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                key=record.key or b"",
                value=record.value or b"",
                headers=tuple(record.headers),
            )
            for records in by_partition.values()
            for record in records
        ]

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commits all offsets in one request, if this member owns every partition."""
        if lost := set(offsets) - self.assignment():
            raise Fenced(f"group {self._group!r} has given {sorted(lost)} to another member")
        if not offsets:
            return
        found = {
            KafkaTopicPartition(*at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()
        }
        try:
            with crash.step("kafka commit"):
                self._client.commit(found, timeout_ms=_COMMIT_TIMEOUT_MS)
        except _LOST_MEMBERSHIP as error:
            raise Fenced(f"group {self._group!r} continues without this member: {error}") from error
        except KafkaError as error:
            raise unavailable(self._servers, error) from error

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stops delivering from owned partitions."""
        if owned := self.assignment() & set(partitions):
            self._client.pause(*(KafkaTopicPartition(*at) for at in owned))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Delivers from these partitions again."""
        if owned := self.assignment() & set(partitions):
            self._client.resume(*(KafkaTopicPartition(*at) for at in owned))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Makes `offset` the next one to deliver."""
        if partition not in self.assignment():
            raise ValueError(f"{partition} is not owned by this member")
        self._client.seek(KafkaTopicPartition(*partition), offset)

    def assignment(self) -> frozenset[TopicPartition]:
        """Returns the partitions that this member owned when it last polled."""
        if self._client is None:
            return frozenset()
        return frozenset(TopicPartition(at.topic, at.partition) for at in self._client.assignment())

    def close(self) -> None:
        """Leaves the group."""
        client, self._client = self._client, None
        if client is not None:
            client.close(autocommit=False, timeout_ms=5_000)
        self._closed(self)

    def _is_joining(self) -> bool:
        """Returns whether the group is rebalancing and this member must join again. The client has no public method for it."""
        return bool(self._client._coordinator.need_rejoin())

    def _connect(self) -> Any:
        return opened(
            KafkaConsumer,
            *self._topics,
            bootstrap_servers=self._servers,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            session_timeout_ms=self._session_timeout_ms,
            # A broker that accepts and never answers; the client allows a join more than this.
            request_timeout_ms=max(_REQUEST_TIMEOUT_MS, self._session_timeout_ms + 1_000),
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
            reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            # Members notice a rebalance at their heartbeat, and all of them wait for the last one.
            heartbeat_interval_ms=min(_HEARTBEAT_MS, self._session_timeout_ms // 3),
            max_poll_interval_ms=int(MAX_POLL_INTERVAL_S * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )


def unavailable(servers: Sequence[str], error: KafkaError) -> EventLogUnavailable:
    """Returns the client's error with the brokers: its own text seldom names them."""
    return EventLogUnavailable(f"Kafka at {', '.join(servers)}: {type(error).__name__}: {error}")
