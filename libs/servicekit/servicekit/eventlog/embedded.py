"""The embedded event log: one SQLite file that the processes of one machine share, without a broker.

SQLite provides what the contract in `base` needs: a `send` is one transaction (all or nothing, which is more than promised),
offsets have no gaps, and synchronous=FULL in WAL mode fsyncs each `send` before it returns. A process may be killed at any
instruction: SQLite rolls its transaction back, its lease ends, and its pipe shows that it is dead.

The file must be on a local file system (SQLite's WAL shares memory between processes).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import weakref
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from servicekit import crash
from servicekit.eventlog import _sqlite, _wake
from servicekit.eventlog._checksum import checksum
from servicekit.eventlog._embedded_consumer import EmbeddedConsumer
from servicekit.eventlog._group import now_ms
from servicekit.eventlog._sqlite import OFFSET_BITS, translated, writing
from servicekit.eventlog.base import (
    DEFAULT_SESSION_TIMEOUT_S,
    EventLogUnavailable,
    Headers,
    OutRecord,
    Topic,
    UnknownTopic,
    check_sizes,
)

crash.primitive(__name__)
_PRUNE_EVERY_S = 60.0
_PRUNE_AT_MOST = 1_000  # records of a partition in one transaction, so that a send never waits long for it


class EmbeddedEventLog:
    """An `EventLog` in the SQLite file at `path`, which is created when missing."""

    system = "openledger_embedded"

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        _sqlite.prepare(self._path)
        self._lock = threading.Lock()
        self._connection = _sqlite.connect(self._path, "FULL")
        self._open: weakref.WeakSet[EmbeddedProducer | EmbeddedConsumer] = weakref.WeakSet()

    def ensure_topics(self, topics: Iterable[Topic]) -> None:
        """Creates missing topics and updates the retention of existing ones; their partitions stay."""
        with self._lock, writing(self._connection):
            for topic in topics:
                retention_ms = None if topic.retention_hours is None else topic.retention_hours * 3_600_000
                made = self._connection.execute(
                    "INSERT OR IGNORE INTO topics VALUES (?, ?, ?)",
                    (topic.name, topic.partitions, retention_ms),
                ).rowcount
                if made:
                    self._connection.executemany(
                        "INSERT INTO partitions (topic, partition) VALUES (?, ?)",
                        [(topic.name, number) for number in range(topic.partitions)],
                    )
                else:
                    self._connection.execute(
                        "UPDATE topics SET retention_ms = ? WHERE name = ?", (retention_ms, topic.name)
                    )

    def producer(self) -> EmbeddedProducer:
        """Returns a producer with its own connection."""
        producer = EmbeddedProducer(self._path)
        self._open.add(producer)
        return producer

    def consumer(
        self, group: str, topics: Collection[str], *, session_timeout_s: float = DEFAULT_SESSION_TIMEOUT_S
    ) -> EmbeddedConsumer:
        """Returns a member of `group`, which joins at its first poll."""
        consumer = EmbeddedConsumer(self._path, group, sorted(topics), session_timeout_s)
        self._open.add(consumer)
        return consumer

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Returns the offset of the next record, by partition."""
        return {partition: following for partition, _, following in self._partitions(topic)}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Returns the group's committed offsets, by partition."""
        with self._lock, translated():
            rows = self._connection.execute(
                "SELECT p.partition, c.next_offset FROM committed c"
                " JOIN partitions p ON p.id = c.partition_id"
                " WHERE c.group_name = ? AND p.topic = ? ORDER BY p.partition",
                (group, topic),
            ).fetchall()
        return dict(rows)

    def lag(self, group: str, topic: str) -> dict[int, int]:
        """Returns the number of kept records that are not yet committed, by partition."""
        committed = self.committed(group, topic)
        return {
            partition: following - max(first, committed.get(partition, 0))
            for partition, first, following in self._partitions(topic)
        }

    def close(self) -> None:
        """Closes the log with its producers and consumers."""
        for part in list(self._open):
            part.close()
        with self._lock:
            self._connection.close()

    def _partitions(self, topic: str) -> list[tuple[int, int, int]]:
        with self._lock, translated():
            rows = self._connection.execute(
                "SELECT partition, first_offset, next_offset FROM partitions"
                " WHERE topic = ? ORDER BY partition",
                (topic,),
            ).fetchall()
        if not rows:
            raise UnknownTopic(topic)
        return rows


class EmbeddedProducer:
    """Appends the records of each `send` in one fsynced transaction, then wakes the consumers of their partitions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _sqlite.connect(path, "FULL")
        self._partition_ids: dict[str, list[int]] = {}
        self._pruned_at = 0.0

    def send(self, records: Sequence[OutRecord]) -> None:
        """Appends all records; none when it raises."""
        if not records:
            return
        check_sizes(records)
        by_partition: dict[int, list[OutRecord]] = {}
        for record in records:
            by_partition.setdefault(self._partition_id(record), []).append(record)
        with writing(self._connection):
            for partition_id, part in by_partition.items():
                self._append(partition_id, part)
            waiting = self._readers(list(by_partition))
        for member in waiting:
            _wake.poke(_wake.pipe_path(self._path, member))
        if time.monotonic() - self._pruned_at > _PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            self._prune()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _partition_id(self, record: OutRecord) -> int:
        ids = self._partition_ids.get(record.topic)
        if ids is None:
            with translated():
                rows = self._connection.execute(
                    "SELECT id FROM partitions WHERE topic = ? ORDER BY partition", (record.topic,)
                ).fetchall()
            if not rows:
                raise UnknownTopic(record.topic)
            ids = self._partition_ids[record.topic] = [row[0] for row in rows]
        return ids[zlib.crc32(record.key) % len(ids)]

    def _append(self, partition_id: int, records: list[OutRecord]) -> None:
        (following,) = self._connection.execute(
            "UPDATE partitions SET next_offset = next_offset + ? WHERE id = ? RETURNING next_offset",
            (len(records), partition_id),
        ).fetchone()
        first_id = (partition_id << OFFSET_BITS) + following - len(records)
        now = now_ms()
        self._connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
            [_row(first_id + i, now, record) for i, record in enumerate(records)],
        )

    def _readers(self, partition_ids: list[int]) -> list[str]:
        marks = ", ".join("?" * len(partition_ids))
        rows = self._connection.execute(
            f"SELECT DISTINCT owner FROM ownership WHERE partition_id IN ({marks}) AND owner IS NOT NULL",
            partition_ids,
        )
        return [row[0] for row in rows]

    def _prune(self) -> None:
        """Deletes records beyond their topic's retention. SQLite reuses the pages; the file does not shrink."""
        # Only housekeeping after a send that has succeeded: when the file is busy, the next send tries again.
        with contextlib.suppress(EventLogUnavailable), translated():
            for partition_id, retention_ms in self._connection.execute(
                "SELECT p.id, t.retention_ms FROM partitions p JOIN topics t ON t.name = p.topic"
                " WHERE t.retention_ms IS NOT NULL"
            ).fetchall():
                self._prune_partition(partition_id, now_ms() - retention_ms)

    def _prune_partition(self, partition_id: int, before_ms: int) -> None:
        base = partition_id << OFFSET_BITS
        oldest = self._connection.execute(
            "SELECT id, timestamp_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (base, base + (1 << OFFSET_BITS), _PRUNE_AT_MOST),
        ).fetchall()
        expired = 0
        while expired < len(oldest) and oldest[expired][1] < before_ms:
            expired += 1
        if expired == 0:
            return
        last = oldest[expired - 1][0]
        with writing(self._connection):
            self._connection.execute("DELETE FROM records WHERE id >= ? AND id <= ?", (base, last))
            self._connection.execute(
                "UPDATE partitions SET first_offset = max(first_offset, ?) WHERE id = ?",
                (last - base + 1, partition_id),
            )


def _row(row_id: int, now: int, record: OutRecord) -> tuple[int, int, bytes, bytes, str, int]:
    headers = _text(record.headers)
    crc = checksum(row_id, now, record.key, record.value, headers.encode())
    return row_id, now, record.key, record.value, headers, crc


def _text(headers: Headers) -> str:
    """Returns headers as JSON; latin-1 maps each byte to one character and back."""
    return json.dumps([(name, value.decode("latin-1")) for name, value in headers])
