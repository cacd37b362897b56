"""Consumer groups of the embedded log: who is a member, and which member reads which partition.

All functions run inside the caller's write transaction, so a group changes from one consistent state to
another.

States of a (group, partition), with `owner` and `wanted` of the table `ownership`:

    free      owner NULL, wanted M      M acquires it at its next poll
    owned     owner M,    wanted M
    released  owner M,    wanted N      M releases it at its next poll, then it is free for N

A member whose lease has ended, or whose process is dead, is evicted: what it owned becomes free at once.
Every change of owner raises `epoch`, and a commit names the epoch under which it read: a late one is
fenced.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from pathlib import Path

from servicekit.eventlog import _wake
from servicekit.eventlog.base import UnknownTopic


def now_ms() -> int:
    """Unix time in milliseconds: the one clock all processes, and restarts, share."""
    return time.time_ns() // 1_000_000


def join(connection: sqlite3.Connection, group: str, member: str, topics: list[str], lease_ms: int) -> None:
    """Make `member` a member of the group; `rebalance` then gives it its part. Raises UnknownTopic."""
    for topic in topics:
        if connection.execute("SELECT 1 FROM topics WHERE name = ?", (topic,)).fetchone() is None:
            raise UnknownTopic(topic)
    connection.execute(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
        (member, group, json.dumps(topics), lease_ms, now_ms() + lease_ms),
    )


def renew(connection: sqlite3.Connection, member: str) -> bool:
    """Extend the member's lease; False when it has been evicted."""
    cursor = connection.execute(
        "UPDATE members SET lease_until_ms = ? + lease_ms WHERE id = ?", (now_ms(), member)
    )
    return cursor.rowcount == 1


def remove(connection: sqlite3.Connection, member: str) -> None:
    """End the membership and free what it owned."""
    connection.execute("DELETE FROM members WHERE id = ?", (member,))
    connection.execute("UPDATE ownership SET owner = NULL, epoch = epoch + 1 WHERE owner = ?", (member,))


def evict_dead(connection: sqlite3.Connection, group: str, database: Path) -> bool:
    """Remove members whose lease has ended or whose process is gone; True when there were any."""
    now = now_ms()
    found = False
    rows = connection.execute(
        "SELECT id, lease_ms, lease_until_ms FROM members WHERE group_name = ?", (group,)
    ).fetchall()
    for member, lease_ms, lease_until_ms in rows:
        pipe = _wake.pipe_path(database, member)
        # A lease that ends further ahead than it is long was written before the clock was set back.
        if now <= lease_until_ms <= now + 2 * lease_ms and not _wake.is_dead(pipe):
            continue
        remove(connection, member)
        if _wake.is_dead(pipe):
            pipe.unlink(missing_ok=True)
        found = True
    return found


def rebalance(connection: sqlite3.Connection, group: str) -> set[str]:
    """Decide anew who is wanted where, moving as few as evenness allows. Returns whom to wake."""
    subscribers: dict[str, set[str]] = {}
    for member, topics in connection.execute(
        "SELECT id, topics FROM members WHERE group_name = ? ORDER BY id", (group,)
    ):
        for topic in json.loads(topics):
            subscribers.setdefault(topic, set()).add(member)
    connection.executemany(
        "INSERT OR IGNORE INTO ownership (group_name, partition_id)"
        " SELECT ?, id FROM partitions WHERE topic = ?",
        [(group, topic) for topic in subscribers],
    )
    rows = connection.execute(
        "SELECT o.partition_id, p.topic, o.owner, o.wanted FROM ownership o JOIN partitions p"
        " ON p.id = o.partition_id WHERE o.group_name = ? ORDER BY o.partition_id",
        (group,),
    ).fetchall()
    candidates = {partition: subscribers.get(topic, set()) for partition, topic, _, _ in rows}
    before = {partition: wanted for partition, _, _, wanted in rows}
    after = _spread(candidates, before)
    connection.executemany(
        "UPDATE ownership SET wanted = ? WHERE group_name = ? AND partition_id = ?",
        [(after[p], group, p) for p in after if after[p] != before[p]],
    )
    owners = {owner for partition, _, owner, _ in rows if owner and owner != after[partition]}
    heirs = {member for partition, _, owner, _ in rows if owner is None and (member := after[partition])}
    return owners | heirs


def _spread(candidates: dict[int, set[str]], before: dict[int, str | None]) -> dict[int, str | None]:
    """Give each partition to a candidate: sticky, then even (loads differ by one where possible)."""
    after = {p: who if (who := before[p]) in members else None for p, members in candidates.items()}
    load = Counter(who for who in after.values() if who)
    for partition, members in candidates.items():
        if after[partition] is None and members:
            after[partition] = min(members, key=lambda m: (load[m], m))
            load[after[partition]] += 1  # type: ignore[index]
    moved = True
    while moved:  # ends: each move lowers the sum of squared loads
        moved = False
        for partition, members in candidates.items():
            who = after[partition]
            if who is None:
                continue
            least = min(members, key=lambda m: (load[m], m))
            if load[who] - load[least] >= 2:
                load[who] -= 1
                load[least] += 1
                after[partition] = least
                moved = True
    return after


def hand_over(connection: sqlite3.Connection, group: str, member: str) -> set[str]:
    """Release what others are wanted for and acquire what is free for `member`. Returns whom to wake."""
    heirs = {
        wanted
        for (wanted,) in connection.execute(
            "SELECT wanted FROM ownership WHERE group_name = ? AND owner = ? AND wanted IS NOT owner"
            " AND wanted IS NOT NULL",
            (group, member),
        )
    }
    connection.execute(
        "UPDATE ownership SET owner = NULL, epoch = epoch + 1"
        " WHERE group_name = ? AND owner = ? AND wanted IS NOT owner",
        (group, member),
    )
    connection.execute(
        "UPDATE ownership SET owner = wanted, epoch = epoch + 1"
        " WHERE group_name = ? AND wanted = ? AND owner IS NULL",
        (group, member),
    )
    return heirs
