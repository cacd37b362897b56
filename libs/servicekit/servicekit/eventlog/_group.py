"""Consumer groups of the embedded log: their members, and which member reads which partition.

All functions run inside the caller's write transaction, so a group changes from one consistent state to another.

States of a (group, partition), given by the columns `owner` and `assigned` of the table `ownership`:

    free     owner NULL, assigned M      M acquires it at its next poll
    owned    owner M,    assigned M
    moving   owner M,    assigned N      M releases it at its next poll, then it is free for N

A member whose lease has ended, or whose process is dead, is evicted, and its partitions become free at once. Every change of
owner increments `epoch`. A commit names the epoch under which its records were read, so a late commit is fenced.
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
    """Returns Unix time in milliseconds: the clock that all processes share, also across restarts."""
    return time.time_ns() // 1_000_000


def join(connection: sqlite3.Connection, group: str, member: str, topics: list[str], lease_ms: int) -> None:
    """Adds a member to the group; `rebalance` then assigns partitions to it. Raises UnknownTopic."""
    for topic in topics:
        if connection.execute("SELECT 1 FROM topics WHERE name = ?", (topic,)).fetchone() is None:
            raise UnknownTopic(topic)
    connection.execute(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
        (member, group, json.dumps(topics), lease_ms, now_ms() + lease_ms),
    )


def renew(connection: sqlite3.Connection, member: str) -> bool:
    """Extends the member's lease. Returns False when the member has been evicted."""
    cursor = connection.execute(
        "UPDATE members SET lease_until_ms = ? + lease_ms WHERE id = ?", (now_ms(), member)
    )
    return cursor.rowcount == 1


def remove(connection: sqlite3.Connection, member: str) -> None:
    """Ends the membership and frees the member's partitions."""
    connection.execute("DELETE FROM members WHERE id = ?", (member,))
    connection.execute("UPDATE ownership SET owner = NULL, epoch = epoch + 1 WHERE owner = ?", (member,))


def evict_dead(connection: sqlite3.Connection, group: str, database: Path) -> bool:
    """Removes members whose lease has ended or whose process is dead. Returns whether there were any."""
    now = now_ms()
    found = False
    rows = connection.execute(
        "SELECT id, lease_ms, lease_until_ms FROM members WHERE group_name = ?", (group,)
    ).fetchall()
    for member, lease_ms, lease_until_ms in rows:
        pipe = _wake.pipe_path(database, member)
        # A lease that ends later than its length allows was written before the clock was set back.
        if now <= lease_until_ms <= now + 2 * lease_ms and not _wake.is_dead(pipe):
            continue
        remove(connection, member)
        if _wake.is_dead(pipe):
            pipe.unlink(missing_ok=True)
        found = True
    return found


def rebalance(connection: sqlite3.Connection, group: str) -> set[str]:
    """Assigns the partitions to members, evenly and with as few moves as possible. Returns the members to wake."""
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
        "SELECT o.partition_id, p.topic, o.owner, o.assigned FROM ownership o JOIN partitions p"
        " ON p.id = o.partition_id WHERE o.group_name = ? ORDER BY o.partition_id",
        (group,),
    ).fetchall()
    candidates = {partition: subscribers.get(topic, set()) for partition, topic, _, _ in rows}
    before = {partition: assigned for partition, _, _, assigned in rows}
    after = _spread(candidates, before)
    connection.executemany(
        "UPDATE ownership SET assigned = ? WHERE group_name = ? AND partition_id = ?",
        [(after[p], group, p) for p in after if after[p] != before[p]],
    )
    owners = {owner for partition, _, owner, _ in rows if owner and owner != after[partition]}
    new_owners = {member for partition, _, owner, _ in rows if owner is None and (member := after[partition])}
    return owners | new_owners


def _spread(candidates: dict[int, set[str]], before: dict[int, str | None]) -> dict[int, str | None]:
    """Returns an assignment of partitions to candidates: sticky, then even (loads differ by one where possible)."""
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
    """Releases partitions that are assigned to others, acquires free ones, and returns the members to wake."""
    new_owners = {
        assigned
        for (assigned,) in connection.execute(
            "SELECT assigned FROM ownership WHERE group_name = ? AND owner = ? AND assigned IS NOT owner"
            " AND assigned IS NOT NULL",
            (group, member),
        )
    }
    connection.execute(
        "UPDATE ownership SET owner = NULL, epoch = epoch + 1"
        " WHERE group_name = ? AND owner = ? AND assigned IS NOT owner",
        (group, member),
    )
    connection.execute(
        "UPDATE ownership SET owner = assigned, epoch = epoch + 1"
        " WHERE group_name = ? AND assigned = ? AND owner IS NULL",
        (group, member),
    )
    return new_owners
