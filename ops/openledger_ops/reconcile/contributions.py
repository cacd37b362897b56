"""Contributions: a record, the events about it, its contributor's counts, its place in the newest snapshot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from openledger.audit.v1.audit_pb2 import ContributorCounts, Record, SealedSnapshot
from openledger.datanet.v1 import datanet_pb2, events_pb2

from identity.snapshot import CorruptSnapshot, read_lines
from openledger_client.errors import OpenLedgerError
from openledger_client.services import DATANET
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.events import Events, Published
from openledger_ops.reconcile.facts import Objects, retention_start
from servicekit.eventlog.topics import DATANET_CONTRIBUTION_V1

EVENT, COUNTED = "contribution event published", "contributions counted"
SEALED = "contribution in the newest snapshot"
_COMMIT_S = 60.0
"""A record that a person accepted so shortly before the records were read may be in this snapshot or in the next."""

Key = tuple[str, str, str]
"""Datanet, contributor (resource names), digest."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What an event says of a record."""

    key: Key
    state: int
    time: datetime


def check(book: Book, events: Events, objects: Objects) -> None:
    """Checks every record of every Datanet."""
    facts = events.facts[DATANET]
    records = facts.of(Record)
    published = events.published(DATANET_CONTRIBUTION_V1, DATANET, events_pb2.ContributionRecorded, _change)
    changes: dict[Key, list[Published[_Change]]] = defaultdict(list)
    for each in published:
        changes[each.kept.key].append(each)
    _check_events(book, records, changes)
    _check_counts(book, facts.of(ContributorCounts), records)
    newest = {snapshot.datanet: snapshot for snapshot in facts.of(SealedSnapshot)}
    for snapshot in newest.values():
        check_sealed(book, objects, snapshot, [r for r in records if r.datanet == snapshot.datanet], changes)


def _change(message: events_pb2.ContributionRecorded) -> _Change:
    key = message.datanet, message.contributor, message.record_digest
    return _Change(key, int(message.state), message.event_time.ToDatetime(UTC))


def _key(record: Record) -> Key:
    return record.datanet, record.contributor, record.digest


def _check_events(
    book: Book, records: Sequence[Record], changes: Mapping[Key, list[Published[_Change]]]
) -> None:
    """The last event about a record says what the database says; no change was published twice."""
    book.saw(EVENT, len(records))
    kept_since = retention_start(DATANET_CONTRIBUTION_V1.retention_hours)
    known: set[Key] = set()
    for record in records:
        key = _key(record)
        known.add(key)
        about = changes.get(key, [])
        if not about and record.create_time.seconds > kept_since:
            book.lost(EVENT, key[2], "no event about it")
        elif about and about[-1].kept.state != record.state:
            said = about[-1].kept.state
            book.lost(EVENT, key[2], f"the last event says state {said}, the database {record.state}")
        for one, other in pairwise(about):
            if one.kept.state == other.kept.state:
                book.doubled(
                    EVENT, key[2], f"events {one.event_id} and {other.event_id} are about one change"
                )
    for key in changes.keys() - known:
        book.lost(EVENT, key[2], "there is an event about it, but no such record in the database")


def _check_counts(book: Book, contributors: Sequence[ContributorCounts], records: Iterable[Record]) -> None:
    counted = Counter((record.contributor, record.state) for record in records)
    book.saw(COUNTED, len(contributors))
    for each in contributors:
        for actual, state, what in (
            (each.accepted_count, datanet_pb2.RECORD_STATE_ACCEPTED, "accepted records"),
            (each.pending_count, datanet_pb2.RECORD_STATE_PENDING, "pending records"),
            (each.rejected_count, datanet_pb2.RECORD_STATE_REJECTED, "rejected records"),
        ):
            book.same(COUNTED, each.name, actual, counted[each.name, state], what)


def check_sealed(
    book: Book,
    objects: Objects,
    snapshot: SealedSnapshot,
    records: Sequence[Record],
    changes: Mapping[Key, list[Published[_Change]]],
) -> None:
    """Every record that was accepted before the snapshot is in it, once, as its contributor's."""
    own = {(record.digest, record.contributor): record for record in records if _owned_digest(record)}
    try:
        lines = list(read_lines(objects.get(DATANET, snapshot.records_digest)))
    except (OpenLedgerError, CorruptSnapshot) as error:
        book.lost(SEALED, snapshot.name, str(error))
        return
    book.saw(SEALED, len(lines))
    for line in lines:
        if (line.record_digest, line.contributor) not in own:
            why = f"the snapshot has it, but the database has no such record of {line.contributor}"
            book.lost(SEALED, line.record_digest, why)
    sealed = {(line.record_digest, line.contributor) for line in lines}
    last = max((own[each].seq for each in sealed & own.keys()), default=0)
    # Sealing may take hours, with restarts in between: what counts is when the records were read.
    read = snapshot.read_time if snapshot.HasField("read_time") else snapshot.seal_time
    read_time = read.ToDatetime(UTC)
    for each, record in own.items():
        before = record.seq <= last and _accepted_before(read_time, changes.get(_key(record), []))
        if before and record.state == datanet_pb2.RECORD_STATE_ACCEPTED and each not in sealed:
            book.lost(SEALED, record.digest, f"accepted, and not in snapshot {snapshot.number}")


def _owned_digest(record: Record) -> bool:
    """Whether the digest is this record's, or was until its contributor withdrew it and another may have sent it again.

    A record that a rule rejected may repeat another contributor's.
    """
    return record.rule in ("", "review", "withdrawn")


def _accepted_before(read_time: datetime, about: Sequence[Published[_Change]]) -> bool:
    """Whether a record's acceptance is older than what a snapshot read.

    Records that are accepted on arrival are sealed in the order of arrival, so their position decides. A record that a
    person accepted has an old position, so the time of that decision counts.
    """
    return len(about) <= 1 or about[-1].kept.time < read_time - timedelta(seconds=_COMMIT_S)
