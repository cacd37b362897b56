"""The contract of the event log, which all implementations keep.

There are two: Apache Kafka (`kafka.py`) for production, and an embedded log on SQLite (`embedded.py`) for one machine.
`tests/contract` runs the same tests against both. Only what is tested there is promised here.

**Topics and partitions.** A topic has a fixed number of partitions; each is an append-only sequence of records. A function of
the log maps a record's key to its partition, so the number of partitions of a topic never changes. `ensure_topics` creates
missing topics and leaves the partitions of existing ones.

**Order.** Records with the same key are in the order in which they were sent: within one `send` the order of the list, across
`send`s the order of the calls. Records with different keys have no promised order.

**Durability.** When `send` returns, every record of the call survives the death of every process, and a crash of the machine
if its storage is durable (Kafka: all in-sync replicas have the record; embedded: it is fsynced). When `send` raises, some
records may have been written: for each partition a prefix of its records in the call. The sender repeats the whole call in
the same order, so these records are then in the log twice. Repeats keep their `ce_id`, and the order of first appearances is
still the order of sending.

**Offsets.** A record's offset is its position in its partition. Offsets grow, and an offset never refers to another record.
There may be gaps (Kafka's transaction markers, compaction). A *committed* offset belongs to a consumer group. It is the
offset of the **next** record that the group needs: all records before it have had their effect. `end_offsets` returns the
next offset of each partition; `lag` is end minus committed.

**Groups and delivery.** One member of a group at a time reads a partition. A group without a committed offset for a partition
starts at its oldest record. A record is delivered **at least once**: after a crash, a lost lease or a rebalance, the records
after the committed offset are delivered again, to the member that owns the partition then. The **effect** happens exactly
once if it is a database change in one transaction with an inbox row (`servicekit.delivery.inbox`): the repeat finds the row
and does nothing.

**Rebalances.** They happen inside `poll`, never between polls, and are cooperative: a member keeps its other partitions, and
hands a partition over only when it polls again. By then it has finished, and should have committed, the records of its last
poll, so a clean hand-over repeats nothing. A member that is closed leaves at once. Closing a log closes all of its members,
also those that no caller references any more. A member that dies, or does not poll for `MAX_POLL_INTERVAL_S`, loses its
partitions after its lease (`session_timeout_s`). The next owner repeats its uncommitted records, and its own late `commit`
raises `Fenced`: a fenced member never moves committed offsets backwards. A partition that is lost is no longer paused.

**Retention.** A topic keeps records for at least `retention_hours` (None: forever) and may delete older ones at any time. A
group whose next record was deleted continues at the oldest record. Data that is needed longer belongs in a service's
database.

**Invalid records.** The log delivers bytes and does not check them. The consumer must move records aside that cannot be decoded
or are invalid (`servicekit.delivery.consumer` sends them to `<topic>.dlq`). The log itself never skips a record.

**Damage.** A record whose stored bytes changed is delivered at its position without content, and `InRecord.damage` says what
happened; the records after it are delivered as usual. (Kafka checks its batches itself, and refuses the fetch of a damaged one.)

**Size.** Key, value and headers of a record together have at most `MAX_RECORD_BYTES`. A larger record raises `RecordTooLarge`
before any record of the call is written. Events refer to large data by object-store digests.

**Threads.** Threads may share an `EventLog`. Only one thread at a time may use a `Producer` or a `Consumer`. None of them can
be used after a fork.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_RECORD_BYTES = 1_000_000
"""Below Kafka's default of 1 MiB for a batch, with room for its framing."""

MAX_POLL_INTERVAL_S = 300.0
"""A member that has not polled for this long counts as stuck and loses its partitions."""

DEFAULT_SESSION_TIMEOUT_S = 10.0
"""How long the partitions of a dead member wait for a new owner."""

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Topic:
    """A topic as proto/topics/<name>.yaml describes it."""

    name: str
    partitions: int = 1
    retention_hours: int | None = None
    messages: tuple[str, ...] = ()
    """Full proto names of the messages that the topic may hold; empty when it may hold any."""

    def dead_letters(self) -> Topic:
        """Returns the topic for invalid records of this one. Its records are kept forever: `openledger dlq` reads it."""
        return Topic(self.name + ".dlq", partitions=1)


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be sent. Records of one key keep their order."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()

    def size(self) -> int:
        """Returns the bytes of key, value and headers, which `MAX_RECORD_BYTES` limits."""
        headers = sum(len(name.encode()) + len(value) for name, value in self.headers)
        return len(self.key) + len(self.value) + headers


@dataclass(frozen=True, slots=True, kw_only=True)
class InRecord:
    """A record in the log. `timestamp_ms` is Unix time in milliseconds, set when it was sent."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Headers = ()
    damage: str = ""
    """What is wrong with it, where the log found it damaged; it then has no content. "" for every other record."""

    @property
    def topic_partition(self) -> TopicPartition:
        """Its partition, for commit, pause and seek."""
        return TopicPartition(self.topic, self.partition)


class EventLogError(Exception):
    """An operation of the event log failed."""


class EventLogUnavailable(EventLogError):
    """The log is unreachable or busy. Repeat the call later."""


class UnknownTopic(EventLogError):
    """The topic does not exist; `ensure_topics` creates it."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist")
        self.topic = topic


class RecordTooLarge(EventLogError):
    """The record exceeds `MAX_RECORD_BYTES`; no record of the call was written."""

    def __init__(self, topic: str, size: int) -> None:
        super().__init__(f"a record of {size} bytes for {topic!r} exceeds the limit of {MAX_RECORD_BYTES}")
        self.topic = topic
        self.size = size


class Fenced(EventLogError):
    """A commit for a partition that this member no longer owns. Another member gets its records."""


class Producer(Protocol):
    """Appends records. Used by one thread at a time."""

    def send(self, records: Sequence[OutRecord]) -> None:
        """Appends all records, in order by key, and returns when all are durable.

        Raises EventLogUnavailable (repeat the whole call), UnknownTopic or RecordTooLarge (nothing was written).
        """

    def close(self) -> None:
        """Closes connections. No record is pending, because `send` waits for all of its records."""


class Consumer(Protocol):
    """A member of a consumer group. Used by one thread at a time; joins the group at the first poll."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[InRecord]:
        """Returns up to `max_records` records of the owned, unpaused partitions, in order within each partition.

        Waits at most about `timeout_s` for the first one; returns an empty list when there was none. Takes part in rebalances.
        Raises EventLogUnavailable.
        """

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Sets the group's next offsets. They survive the death of every process; a crash of the machine may lose the last
        ones (records repeat). Raises Fenced (nothing is committed) or EventLogUnavailable.
        """

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stops delivering from these owned partitions, without releasing them."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undoes `pause`."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Makes `offset` the next one to deliver. Raises ValueError for a partition that is not owned."""

    def assignment(self) -> frozenset[TopicPartition]:
        """Returns the partitions that this member owned when it last polled."""

    def close(self) -> None:
        """Leaves the group at once, so that others need not wait for the end of its lease."""


class EventLog(Protocol):
    """A log of events. Safe to share between threads."""

    system: str
    """Its name in traces (`messaging.system`)."""

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Creates missing topics. Idempotent, also when several processes call it at once."""

    def producer(self) -> Producer:
        """Returns a new producer."""

    def consumer(
        self, group: str, topics: Collection[str], *, session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S
    ) -> Consumer:
        """Returns a new member of `group`. The topics must exist at its first poll (UnknownTopic)."""

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Returns the offset of the next record, by partition. Raises UnknownTopic."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Returns the group's committed offsets, by partition; partitions without one are missing."""

    def lag(self, group: str, topic: str) -> dict[int, int]:
        """Returns how many offsets the group has yet to commit, by partition; without a committed offset, all kept records."""

    def close(self) -> None:
        """Closes everything that this object opened, including its producers and consumers."""


def check_sizes(records: Sequence[OutRecord]) -> None:
    """Raises RecordTooLarge for the first record above the limit."""
    for record in records:
        if (size := record.size()) > MAX_RECORD_BYTES:
            raise RecordTooLarge(record.topic, size)
