"""What the event log promises, whichever implementation stands behind it.

Two do: Apache Kafka (`kafka.py`) for production, and an embedded log on SQLite (`embedded.py`) for one
machine. `tests/contract` runs the same claims against both; what is not claimed there is not promised here.

**Topics and partitions.** A topic is a fixed number of partitions; each is an append-only sequence of
records. A record's key alone decides its partition, by a function the log owns, so a topic's partition
count never changes once made. `ensure_topics` makes what is missing and leaves the count of what exists.

**Order.** Records with one key stand in the order in which they were sent: within one `send` the order of the
list, across `send`s the order of the calls. Nothing is said about records with different keys.

**Durability.** When `send` returns, every record of the call survives the death of every process and, as
far as the storage below keeps its word, of the machine (Kafka: all in-sync replicas have it; embedded: it
is fsynced). When `send` raises, some records may have been written: for each partition a prefix of what the
call held for it. The sender repeats the whole call in the same order, and what had been written stands
twice. Repeats keep their `ce_id`, and the order of first appearances is still the order of sending.

**Offsets.** A record's offset is its position in its partition: it grows, names the record for ever, and is
never given to another one. Offsets may have holes (Kafka's transaction markers, compaction). A *committed*
offset belongs to a consumer group and is the offset of the **next** record the group wants, so committing
means: everything before this has had its effect. `end_offsets` is the next offset that will be given; `lag`
is end minus committed.

**Groups and delivery.** Each partition of a topic is read by one member of a group at a time. A group that
has no committed offset for a partition starts at the oldest record kept. A record is delivered **at least
once**: after a crash, a lost lease or a rebalance, records after the committed offset come again, to
whichever member owns the partition then. The **effect** happens exactly once when it is a database change
made in one transaction with an inbox row (`servicekit.inbox`): the repeat finds the row and does nothing.

**Rebalances.** They happen inside `poll`, never between polls, and are cooperative: a member keeps what it
keeps, and hands over a partition only when it polls again, which is when it has finished, and should have
committed, what the last poll gave it. So a clean hand-over repeats nothing. A member that is closed leaves at once, and
closing a log closes its members, those too that nobody holds any more. A member that dies, or does not
poll for `MAX_POLL_INTERVAL_S`, loses its partitions after its lease (`session_timeout_s`); what it had not
committed is repeated by its successor, and its own late `commit` raises `Fenced`. Committed offsets never
move backwards through a fenced member. Pauses do not survive losing a partition.

**Retention.** A topic keeps records at least `retention_hours` (None: for ever) and may drop older ones at
any time. A group whose next record is gone goes on at the oldest one kept. What must be remembered longer
belongs in a service's database.

**Poison.** The log delivers bytes and judges none. A record that can't be decoded or is invalid is the
consumer's to move aside (`servicekit.consumer` sends it to `<topic>.dlq`); the log never skips one by
itself.

**Size.** Key, value and headers of a record together hold at most `MAX_RECORD_BYTES`; a larger one raises
`RecordTooLarge` before anything of the call is written. Large things travel as object-store digests.

**Threads.** An `EventLog` may be shared by threads; a `Producer` or a `Consumer` is used by one thread at a
time. Neither crosses a fork.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_RECORD_BYTES = 1_000_000
"""Below Kafka's default of 1 MiB for a batch, with room for its framing."""

MAX_POLL_INTERVAL_S = 300.0
"""A member that has not polled for this long is taken for stuck and loses its partitions."""

DEFAULT_SESSION_TIMEOUT_S = 10.0
"""How long a dead member's partitions wait for a successor."""

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Topic:
    """A topic as proto/topics/<name>.yaml describes it."""

    name: str
    partitions: int = 1
    retention_hours: int | None = None
    messages: tuple[str, ...] = ()
    """Full proto names of the messages that may stand in it; empty when anything may."""

    def dead_letters(self) -> Topic:
        """The topic invalid records of this one are moved to; kept without end: `openledger dlq` reads it."""
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
        """Bytes of key, value and headers, as `MAX_RECORD_BYTES` counts them."""
        headers = sum(len(name.encode()) + len(value) for name, value in self.headers)
        return len(self.key) + len(self.value) + headers


@dataclass(frozen=True, slots=True)
class InRecord:
    """A record as it stands in the log. `timestamp_ms` is Unix time in milliseconds, set when it was sent."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Headers = ()

    @property
    def topic_partition(self) -> TopicPartition:
        """Where it stands, for commit, pause and seek."""
        return TopicPartition(self.topic, self.partition)


class EventLogError(Exception):
    """Something the event log could not do."""


class EventLogUnavailable(EventLogError):
    """Transient: the log can't be reached or is busy. Repeating the call later is right."""


class UnknownTopic(EventLogError):
    """The topic does not exist; `ensure_topics` makes it."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist")
        self.topic = topic


class RecordTooLarge(EventLogError):
    """The record exceeds `MAX_RECORD_BYTES`; nothing of the call was written."""

    def __init__(self, topic: str, size: int) -> None:
        super().__init__(f"a record of {size} bytes for {topic!r} exceeds the limit of {MAX_RECORD_BYTES}")
        self.topic = topic
        self.size = size


class Fenced(EventLogError):
    """A commit for a partition this member no longer owns; another gets, or will get, its records."""


class Producer(Protocol):
    """Appends records. Used by one thread at a time."""

    def send(self, records: Sequence[OutRecord]) -> None:
        """Append all, in order by key, and return when all are durable.

        Raises EventLogUnavailable (repeat the whole call), UnknownTopic or RecordTooLarge (nothing was
        written).
        """

    def close(self) -> None:
        """Release connections. Nothing is pending: `send` leaves nothing behind."""


class Consumer(Protocol):
    """A member of a consumer group. Used by one thread at a time; joins the group at the first poll."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[InRecord]:
        """Up to `max_records` of the owned, unpaused partitions, in order within each partition.

        Waits at most about `timeout_s` for the first one; empty when there was none. Takes part in
        rebalances. Raises EventLogUnavailable.
        """

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Set the group's next offsets. They survive the death of every process; a crash of the machine may
        take the last ones back (records repeat). Raises Fenced (nothing is committed) or EventLogUnavailable.
        """

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop delivering from these owned partitions, without giving them up."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Undo `pause`."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next. The partition must be owned (ValueError)."""

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions this member owned when it last polled."""

    def close(self) -> None:
        """Leave the group at once, so that others need not wait for the lease."""


class EventLog(Protocol):
    """A log of events. Safe to share between threads."""

    system: str
    """What traces call it (`messaging.system`)."""

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Make the topics that are missing. Idempotent, also when several processes call it at once."""

    def producer(self) -> Producer:
        """A new producer."""

    def consumer(
        self, group: str, topics: Collection[str], *, session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S
    ) -> Consumer:
        """A new member of `group`. The topics must exist at the first poll (UnknownTopic)."""

    def end_offsets(self, topic: str) -> dict[int, int]:
        """By partition, the offset the next record will get. Raises UnknownTopic."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """By partition, the group's committed offset; partitions without one are missing."""

    def lag(self, group: str, topic: str) -> dict[int, int]:
        """By partition, how many offsets the group has yet to commit; all kept records where it has none."""

    def close(self) -> None:
        """Close what this object opened, its producers and consumers included."""


def check_sizes(records: Sequence[OutRecord]) -> None:
    """Raise RecordTooLarge for the first record above the limit."""
    for record in records:
        if (size := record.size()) > MAX_RECORD_BYTES:
            raise RecordTooLarge(record.topic, size)
