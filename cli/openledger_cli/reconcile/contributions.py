"""Contributions: a record, the events about it, its contributor's counts, its place in the newest snapshot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from openledger.datanet.v1 import datanet_pb2, events_pb2
from sqlalchemy import Row

from identity.snapshot import CorruptSnapshot, read_lines
from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.events import Telling, Told
from openledger_cli.reconcile.rows import Rows
from servicekit.database import UtcDateTime, utc_now
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from servicekit.topics import DATANET_CONTRIBUTION_V1

TOLD, COUNTED, SEALED = "contribution told", "contributions counted", "contribution in the newest snapshot"
_SEALING_S = 60.0
"""A record that was accepted by a person so shortly before a snapshot may be in it or in the next."""

Key = tuple[str, str, str]
"""Datanet, contributor (resource names), digest."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What an event says of a record."""

    key: Key
    state: int
    time: datetime


def check(book: Book, telling: Telling, objects: ObjectStore) -> None:
    """Judges every record of every Datanet."""
    rows = telling.rows["datanet"]
    records = rows.all(
        "SELECT seq, datanet, contributor, digest, state, rule, create_time FROM records ORDER BY seq",
        {"create_time": UtcDateTime()},
    )
    told = telling.told(DATANET_CONTRIBUTION_V1, "datanet", events_pb2.ContributionRecorded, _change)
    changes: dict[Key, list[Told[_Change]]] = defaultdict(list)
    for each in told:
        changes[each.kept.key].append(each)
    _check_told(book, records, changes)
    _check_counts(book, rows, records)
    _check_sealed(book, rows, objects, records, changes)


def _change(message: events_pb2.ContributionRecorded) -> _Change:
    key = message.datanet, message.contributor, message.record_digest
    return _Change(key, int(message.state), message.event_time.ToDatetime(UTC))


def _key(record: Row[Any]) -> Key:
    datanet = f"datanets/{record.datanet}"
    return datanet, f"{datanet}/contributors/{record.contributor}", record.digest


def _check_told(book: Book, records: Sequence[Row[Any]], changes: Mapping[Key, list[Told[_Change]]]) -> None:
    """The last event about a record says what the database says; no change was told twice."""
    book.saw(TOLD, len(records))
    hours = DATANET_CONTRIBUTION_V1.retention_hours
    kept_since = utc_now() - timedelta(hours=hours or 0)
    known: set[Key] = set()
    for record in records:
        key = _key(record)
        known.add(key)
        about = changes.get(key, [])
        if not about and (hours is None or record.create_time > kept_since):
            book.lost(TOLD, key[2], "no event about it")
        elif about and about[-1].kept.state != record.state:
            book.lost(
                TOLD, key[2], f"the last event says state {about[-1].kept.state}, the database {record.state}"
            )
        for one, other in pairwise(about):
            if one.kept.state == other.kept.state:
                book.doubled(TOLD, key[2], f"events {one.event_id} and {other.event_id} tell one change")
    for key in changes.keys() - known:
        book.lost(TOLD, key[2], "an event tells of it, the database has no such record")


def _check_counts(book: Book, rows: Rows, records: Iterable[Row[Any]]) -> None:
    counted = Counter((record.datanet, record.contributor, record.state) for record in records)
    states = {
        "accepted_count": datanet_pb2.RECORD_STATE_ACCEPTED,
        "pending_count": datanet_pb2.RECORD_STATE_PENDING,
        "rejected_count": datanet_pb2.RECORD_STATE_REJECTED,
    }
    contributors = rows.all(f"SELECT datanet, id, {', '.join(states)} FROM contributors")
    book.saw(COUNTED, len(contributors))
    for each in contributors:
        for column, state in states.items():
            should_be = counted[each.datanet, each.id, state]
            book.same(COUNTED, f"{each.datanet}/{each.id}", getattr(each, column), should_be, column)


def _check_sealed(
    book: Book,
    rows: Rows,
    objects: ObjectStore,
    records: Sequence[Row[Any]],
    changes: Mapping[Key, list[Told[_Change]]],
) -> None:
    """Every record that was accepted before the newest snapshot of its Datanet is in it, once, as its contributor's."""
    newest = {
        row.datanet: row
        for row in rows.all(
            "SELECT datanet, number, records_digest, seal_time FROM snapshots ORDER BY number",
            {"seal_time": UtcDateTime()},
        )
    }
    for datanet, snapshot in newest.items():
        own = {record.digest: record for record in records if record.datanet == datanet and _holds(record)}
        try:
            lines = list(read_lines(objects.get_bytes(snapshot.records_digest)))
        except (DomainError, CorruptSnapshot) as error:
            book.lost(SEALED, f"{datanet}/{snapshot.number}", str(error))
            continue
        book.saw(SEALED, len(lines))
        for line in lines:
            record = own.get(line.record_digest)
            if record is None or _key(record)[1] != line.contributor:
                book.lost(
                    SEALED, line.record_digest, f"the snapshot has it, the database not of {line.contributor}"
                )
        sealed = {line.record_digest for line in lines}
        last = max((own[digest].seq for digest in sealed & own.keys()), default=0)
        for digest, record in own.items():
            before = record.seq <= last and _long_accepted(
                record, changes.get(_key(record), []), snapshot.seal_time
            )
            if before and record.state == datanet_pb2.RECORD_STATE_ACCEPTED and digest not in sealed:
                book.lost(SEALED, digest, f"accepted, and not in snapshot {snapshot.number}")


def _holds(record: Row[Any]) -> bool:
    """Whether its digest is this record's: a row that a rule rejected may have the digest of another contributor's."""
    return record.rule in ("", "review")


def _long_accepted(record: Row[Any], about: Sequence[Told[_Change]], sealed: datetime) -> bool:
    """Whether a record's acceptance is older than a snapshot.

    Records that are accepted as they come are sealed in the order of arrival, so their place decides. One that a person
    accepted has an old place, and the time of the decision decides.
    """
    return len(about) <= 1 or about[-1].kept.time < sealed - timedelta(seconds=_SEALING_S)
