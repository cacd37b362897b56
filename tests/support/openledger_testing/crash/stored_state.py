"""What is left when a process is dead: its database, the event log, objects. Read here and nowhere else, and only these."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from servicekit.eventlog.base import InRecord
from servicekit.eventlog.events import Event, from_record


def rows(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Returns the rows of one query on a SQLite file that is not being written."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def one(database: Path, query: str, *values: Any) -> Any:
    """The single value that a query answers."""
    ((value,),) = rows(database, query, *values)
    return value


def events(folder: Path, topic: str) -> dict[str, Any]:
    """The messages in a topic, by ce_id; the same id twice must be the same event (a publisher may repeat one)."""
    found: dict[str, Any] = {}
    for key, value, headers in rows(
        folder / "events.db",
        "SELECT r.key, r.value, r.headers FROM records r JOIN partitions p ON p.id = r.id >> 40"
        " WHERE p.topic = ? ORDER BY r.id",
        topic,
    ):
        pairs = tuple((name, text.encode("latin-1")) for name, text in json.loads(headers))
        event: Event[Any] = from_record(
            InRecord(topic=topic, partition=0, offset=0, timestamp_ms=0, key=key, value=value, headers=pairs)
        )
        assert found.setdefault(event.id, event.message) == event.message, f"two events are called {event.id}"
    return found


def check_at_rest(folder: Path, database: Path, group: str = "", *topics: str) -> None:
    """Nothing is waiting: the outbox is empty, no dead letters, and all of these topics had its effect, each event once."""
    assert one(database, "SELECT count(*) FROM outbox") == 0, "the outbox is not empty"
    dead = rows(
        folder / "events.db", "SELECT topic FROM partitions WHERE topic LIKE '%.dlq' AND next_offset > 0"
    )
    assert not dead, f"dead letters: {dead}"
    if not group:
        return
    needed = {event_id for topic in topics for event_id in events(folder, topic)}
    taken = {
        event_id for (event_id,) in rows(database, "SELECT event_id FROM inbox WHERE consumer = ?", group)
    }
    assert taken == needed, (
        f"events without effect: {needed - taken}; effects without event: {taken - needed}"
    )
    assert not lag(folder, group, *topics), f"{group} has not committed all of {topics}"


def lag(folder: Path, group: str, *topics: str) -> int:
    """How many records of these topics a group has not committed."""
    marks = ", ".join("?" * len(topics))
    return int(
        one(
            folder / "events.db",
            "SELECT coalesce(sum(p.next_offset - coalesce(c.next_offset, 0)), 0) FROM partitions p LEFT JOIN committed c"
            f" ON c.partition_id = p.id AND c.group_name = ? WHERE p.topic IN ({marks})",
            group,
            *topics,
        )
    )


def check_objects(folder: Path) -> set[str]:
    """The digests of all objects; each object is what its name says."""
    found = set()
    for path in (folder / "objects" / "sha256").glob("??/*"):
        name = path.parent.name + path.name
        assert sha256(path.read_bytes()).hexdigest() == name, f"{path} has other bytes"
        found.add(f"sha256:{name}")
    return found


def appearances(values: list[Any]) -> dict[Any, int]:
    """How often each value is there."""
    counts: dict[Any, int] = defaultdict(int)
    for value in values:
        counts[value] += 1
    return dict(counts)
