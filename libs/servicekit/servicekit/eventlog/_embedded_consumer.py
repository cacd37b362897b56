"""A consumer of the embedded log. It fetches in order and sleeps until a producer wakes it; a second thread renews its lease."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulid import ULID

from servicekit import crash
from servicekit.eventlog import _group, _sqlite, _wake
from servicekit.eventlog._checksum import is_damaged
from servicekit.eventlog._sqlite import OFFSET_BITS, translated, writing
from servicekit.eventlog.base import (
    MAX_POLL_INTERVAL_S,
    EventLogUnavailable,
    Fenced,
    InRecord,
    TopicPartition,
)

crash.primitive(__name__)
logger = logging.getLogger(__name__)

_POLL_EVERY_S = 1.0
"""Largest delay after a lost wake-up: a producer may be killed between its commit and the wake-up."""

_LAST_RENEWAL_S = 30.0
"""Longest that closing waits for a renewal that runs; the database's own limit is shorter."""

_FETCH_BYTES = 16 << 20
"""A poll returns at most about this many bytes, even when max_records allows more records."""


@dataclass(slots=True)
class _Owned:
    """A partition that this member reads, the epoch of its ownership, and the next offset."""

    partition_id: int
    epoch: int
    position: int


class EmbeddedConsumer:
    """A member of a consumer group; see `base.Consumer`."""

    def __init__(self, path: Path, group: str, topics: list[str], session_timeout_s: float) -> None:
        self._path = path
        self._group = group
        self._topics = topics
        self._lease_ms = int(session_timeout_s * 1000)
        self._connection = _sqlite.connect(path, "NORMAL")
        self._member = ""
        self._waiter: _wake.Waiter | None = None
        self._owned: dict[TopicPartition, _Owned] = {}
        self._paused: set[TopicPartition] = set()
        self._turn = 0
        self._polled_at = time.monotonic()
        self._closing = threading.Event()
        self._heart: threading.Thread | None = None

    def poll(self, timeout_s: float, max_records: int = 500) -> list[InRecord]:
        """Returns records of the owned, unpaused partitions; waits at most `timeout_s` for the first one."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._polled_at = time.monotonic()
            waiter = self._be_member()
            waiter.clear()
            self._take_part()
            if records := self._fetch(max_records):
                return records
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            waiter.wait(min(left, _POLL_EVERY_S))

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commits all offsets in one transaction, if this member still owns every partition."""
        with writing(self._connection):
            for partition, offset in offsets.items():
                owned = self._owned.get(partition)
                row = (
                    owned
                    and self._connection.execute(
                        "SELECT owner, epoch FROM ownership WHERE group_name = ? AND partition_id = ?",
                        (self._group, owned.partition_id),
                    ).fetchone()
                )
                if owned is None or row != (self._member, owned.epoch):
                    raise Fenced(f"group {self._group!r} has given {partition} to another member")
                self._connection.execute(
                    "INSERT OR REPLACE INTO committed VALUES (?, ?, ?)",
                    (self._group, owned.partition_id, offset),
                )

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stops delivering from owned partitions."""
        self._paused |= self._owned.keys() & set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Delivers from these partitions again."""
        self._paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Makes `offset` the next one to deliver."""
        if partition not in self._owned:
            raise ValueError(f"{partition} is not owned by this member")
        self._owned[partition].position = offset

    def assignment(self) -> frozenset[TopicPartition]:
        """Returns the partitions that this member owned when it last polled."""
        return frozenset(self._owned)

    def close(self) -> None:
        """Leaves the group and wakes the new owners of its partitions."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._heart:
            self._heart.join(_LAST_RENEWAL_S)
        if self._waiter:
            with contextlib.suppress(
                EventLogUnavailable
            ):  # then the others notice the ended lease or the missing pipe
                with writing(self._connection):
                    _group.remove(self._connection, self._member)
                    new_owners = _group.rebalance(self._connection, self._group)
                self._wake(new_owners)
            self._waiter.close()
        self._connection.close()

    def _be_member(self) -> _wake.Waiter:
        """Joins the group at the first call, and after an eviction (a process that stood still for longer than its lease)."""
        if self._waiter is not None:
            with translated():
                query = "SELECT 1 FROM members WHERE id = ?"
                if self._connection.execute(query, (self._member,)).fetchone() is not None:
                    return self._waiter
            logger.warning("evicted from the group, joining again", extra={"group": self._group})
            self._waiter.close()
            self._waiter = None
        member = str(ULID())
        waiter = _wake.Waiter(_wake.pipe_path(self._path, member))
        try:
            with writing(self._connection):
                _group.evict_dead(self._connection, self._group, self._path)
                _group.join(self._connection, self._group, member, self._topics, self._lease_ms)
                others = _group.rebalance(self._connection, self._group)
        except BaseException:
            waiter.close()
            raise
        self._member, self._waiter = member, waiter
        self._wake(others)
        if self._heart is None:
            self._heart = threading.Thread(target=self._keep_lease, name=f"lease-{self._group}", daemon=True)
            self._heart.start()
        return waiter

    def _take_part(self) -> None:
        """Releases and acquires partitions as the last rebalance decided, and updates `_owned`."""
        rows = self._ownership()
        if any(assigned != self._member or owner is None for _, _, _, owner, assigned, _ in rows):
            with writing(self._connection):
                new_owners = _group.hand_over(self._connection, self._group, self._member)
            self._wake(new_owners)
            rows = self._ownership()
        current: dict[TopicPartition, _Owned] = {}
        for partition_id, topic, number, owner, _, epoch in rows:
            if owner != self._member:
                continue  # assigned to this member, but its owner has not released it yet
            partition = TopicPartition(topic, number)
            known = self._owned.get(partition)
            if known is None or known.epoch != epoch:
                self._paused.discard(partition)
                known = _Owned(partition_id, epoch, self._start_of(partition_id))
            current[partition] = known
        self._paused &= current.keys()
        self._owned = current

    def _ownership(self) -> list[tuple[int, str, int, str | None, str | None, int]]:
        with translated():
            return self._connection.execute(
                "SELECT o.partition_id, p.topic, p.partition, o.owner, o.assigned, o.epoch"
                " FROM ownership o JOIN partitions p ON p.id = o.partition_id"
                " WHERE o.group_name = ? AND (o.owner = ? OR (o.assigned = ? AND o.owner IS NULL))"
                " ORDER BY o.partition_id",
                (self._group, self._member, self._member),
            ).fetchall()

    def _start_of(self, partition_id: int) -> int:
        with translated():
            row: tuple[int] | None = self._connection.execute(
                "SELECT next_offset FROM committed WHERE group_name = ? AND partition_id = ?",
                (self._group, partition_id),
            ).fetchone()
        return row[0] if row else 0  # the oldest record that is kept: older rows are deleted

    def _fetch(self, max_records: int) -> list[InRecord]:
        active = [p for p in self._owned if p not in self._paused]
        self._turn += (
            1  # start with another partition each time, so that a busy one does not starve the others
        )
        found: list[InRecord] = []
        size = 0
        for i in range(len(active)):
            partition = active[(self._turn + i) % len(active)]
            owned = self._owned[partition]
            base = owned.partition_id << OFFSET_BITS
            with (
                translated(),
                contextlib.closing(
                    self._connection.execute(
                        # As bytes: SQLite would refuse to decode a header that is damaged.
                        "SELECT id, timestamp_ms, key, value, CAST(headers AS BLOB), crc32c FROM records"
                        " WHERE id >= ? AND id < ?"
                        " ORDER BY id LIMIT ?",
                        (base + owned.position, base + (1 << OFFSET_BITS), max_records - len(found)),
                    )
                ) as rows,
            ):
                for row in rows:
                    row_id, value = row[0], row[3]
                    found.append(_record(partition, row_id - base, row))
                    owned.position = row_id - base + 1
                    size += len(value) if isinstance(value, bytes) else 0
                    if size >= _FETCH_BYTES:
                        return found
            if len(found) >= max_records:
                break
        return found

    def _wake(self, members: set[str]) -> None:
        for member in members - {self._member}:
            _wake.poke(_wake.pipe_path(self._path, member))

    def _keep_lease(self) -> None:
        """Renews the lease three times per lease period, and finds new owners for the partitions of dead members."""
        connection = _sqlite.connect(self._path, "NORMAL")
        try:
            while not self._closing.wait(self._lease_ms / 3000):
                if time.monotonic() - self._polled_at > MAX_POLL_INTERVAL_S:
                    continue  # stuck in a handler: let the lease end
                with contextlib.suppress(EventLogUnavailable):  # tried again at the next renewal
                    with writing(connection):
                        _group.renew(connection, self._member)
                        dead = _group.evict_dead(connection, self._group, self._path)
                        others = _group.rebalance(connection, self._group) if dead else set()
                    for member in others:
                        _wake.poke(_wake.pipe_path(self._path, member))
        finally:
            connection.close()


def _record(partition: TopicPartition, offset: int, row: tuple[Any, ...]) -> InRecord:
    """Returns the record of a row. One that differs from what was sent says so, and has no content."""
    _, timestamp_ms, key, value, headers, _ = row
    where: dict[str, Any] = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
    if is_damaged(row):
        damage = (
            f"offset {offset} of {partition.topic}, partition {partition.partition}, changed on the disk after it was written"
            " (its checksum differs), so its event is lost here: check the disk, then run `openledger reconcile`, which"
            " names what is missing"
        )
        return InRecord(**where, timestamp_ms=0, key=b"", value=b"", damage=damage)
    pairs = tuple((name, text.encode("latin-1")) for name, text in json.loads(headers))
    return InRecord(**where, timestamp_ms=timestamp_ms, key=key, value=value, headers=pairs)
