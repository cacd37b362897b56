"""A consumer of the embedded log: fetches in order, sleeps until poked, a second thread keeps its lease."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from servicekit import crash
from servicekit.eventlog import _group, _sqlite, _wake
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

_LOOK_EVERY_S = 1.0
"""Bound on what a lost poke costs: a producer killed between its commit and its poke."""

_FETCH_BYTES = 16 << 20
"""A poll stops after about this many bytes, however small max_records would let it be."""


@dataclass(slots=True)
class _Owned:
    """A partition this member reads: under which epoch, and from which offset next."""

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
        """Records of the owned, unpaused partitions; waits for the first one at most `timeout_s`."""
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
            waiter.wait(min(left, _LOOK_EVERY_S))

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """All offsets in one transaction, if this member still owns every partition."""
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
        """Stop delivering from owned partitions."""
        self._paused |= self._owned.keys() & set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Deliver again."""
        self._paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next."""
        if partition not in self._owned:
            raise ValueError(f"{partition} is not owned by this member")
        self._owned[partition].position = offset

    def assignment(self) -> frozenset[TopicPartition]:
        """What this member owned when it last polled."""
        return frozenset(self._owned)

    def close(self) -> None:
        """Leave the group and wake the heirs."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._heart:
            self._heart.join()
        if self._waiter:
            with contextlib.suppress(EventLogUnavailable):  # then the lease, or the pipe's absence, tells
                with writing(self._connection):
                    _group.remove(self._connection, self._member)
                    heirs = _group.rebalance(self._connection, self._group)
                self._wake(heirs)
            self._waiter.close()
        self._connection.close()

    def _be_member(self) -> _wake.Waiter:
        """Join, the first time and after an eviction (a process stopped for longer than its lease)."""
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
        """Bring `_owned` in line with the group; release and acquire what the last rebalance decided."""
        rows = self._ownership()
        if any(wanted != self._member or owner is None for _, _, _, owner, wanted, _ in rows):
            with writing(self._connection):
                heirs = _group.hand_over(self._connection, self._group, self._member)
            self._wake(heirs)
            rows = self._ownership()
        current: dict[TopicPartition, _Owned] = {}
        for partition_id, topic, number, owner, _, epoch in rows:
            if owner != self._member:
                continue  # wanted here, but its owner has not let go yet
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
                "SELECT o.partition_id, p.topic, p.partition, o.owner, o.wanted, o.epoch"
                " FROM ownership o JOIN partitions p ON p.id = o.partition_id"
                " WHERE o.group_name = ? AND (o.owner = ? OR (o.wanted = ? AND o.owner IS NULL))"
                " ORDER BY o.partition_id",
                (self._group, self._member, self._member),
            ).fetchall()

    def _start_of(self, partition_id: int) -> int:
        with translated():
            row: tuple[int] | None = self._connection.execute(
                "SELECT next_offset FROM committed WHERE group_name = ? AND partition_id = ?",
                (self._group, partition_id),
            ).fetchone()
        return row[0] if row else 0  # the oldest kept: rows below it are gone

    def _fetch(self, max_records: int) -> list[InRecord]:
        active = [p for p in self._owned if p not in self._paused]
        self._turn += 1  # begin with another partition each time, so that a busy one starves none
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
                        "SELECT id, timestamp_ms, key, value, headers FROM records WHERE id >= ? AND id < ?"
                        " ORDER BY id LIMIT ?",
                        (base + owned.position, base + (1 << OFFSET_BITS), max_records - len(found)),
                    )
                ) as rows,
            ):
                for row_id, timestamp_ms, key, value, headers in rows:
                    pairs = tuple((name, text.encode("latin-1")) for name, text in json.loads(headers))
                    found.append(InRecord(*partition, row_id - base, timestamp_ms, key, value, pairs))
                    owned.position = row_id - base + 1
                    size += len(value)
                    if size >= _FETCH_BYTES:
                        return found
            if len(found) >= max_records:
                break
        return found

    def _wake(self, members: set[str]) -> None:
        for member in members - {self._member}:
            _wake.poke(_wake.pipe_path(self._path, member))

    def _keep_lease(self) -> None:
        """Renew the lease thrice in its time, and find new owners for dead members' partitions."""
        connection = _sqlite.connect(self._path, "NORMAL")
        try:
            while not self._closing.wait(self._lease_ms / 3000):
                if time.monotonic() - self._polled_at > MAX_POLL_INTERVAL_S:
                    continue  # stuck in a handler: let the lease run out
                with contextlib.suppress(EventLogUnavailable):  # tried again at the next beat
                    with writing(connection):
                        _group.renew(connection, self._member)
                        dead = _group.evict_dead(connection, self._group, self._path)
                        others = _group.rebalance(connection, self._group) if dead else set()
                    for member in others:
                        _wake.poke(_wake.pipe_path(self._path, member))
        finally:
            connection.close()
