"""Records whose bytes changed on the disk: found by their digest, named, and kept out of snapshots by a person's decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from sqlalchemy.orm import Session

from datanet import store
from datanet.snapshot import AcceptedRecord
from identity.digest import digest_hex, sha256_bytes
from identity.names import DatanetName, RecordName
from servicekit.errors import FailedPrecondition

_NAMED = 5


def is_damaged(digest: str, content: bytes) -> bool:
    """Returns whether stored content is not what its digest names. Content that is not kept cannot be damaged."""
    return bool(content) and sha256_bytes(content) != digest


def intact(
    session: Session, name: DatanetName, records: Iterable[AcceptedRecord], contributors: Collection[str]
) -> Iterator[AcceptedRecord]:
    """Yields the records that are not damaged.

    At the end, raises FailedPrecondition if any are: it names some and the command that leaves each out of the snapshot.
    """
    total = count = 0
    damaged: list[AcceptedRecord] = []
    for record in records:
        total += 1
        if (
            record.content
            and record.contributor in contributors
            and not is_damaged(record.digest, record.content)
        ):
            yield record
            continue
        count += 1
        if len(damaged) < _NAMED:
            damaged.append(record)
    if not count:
        return
    shown = [_remedy(session, name, record) for record in damaged]
    more = f", and {count - _NAMED} more" if count > _NAMED else ""
    raise FailedPrecondition(
        "RECORDS_DAMAGED",
        f"{count} of {total} accepted records of {name} changed on the disk after they were accepted: check the"
        f" disk, and restore the database from a backup, or leave them out: {'; '.join(shown)}{more}",
        subject=str(name),
        damaged=count,
    )


def _remedy(session: Session, name: DatanetName, record: AcceptedRecord) -> str:
    """Returns the command that withdraws a record. The name that finds it is that of its digest or of its content,
    whichever is not damaged."""
    for digest in (record.digest, sha256_bytes(record.content)):
        try:
            found = RecordName(name.datanet, digest_hex(digest))
        except ValueError:
            continue
        stored = store.records.get(session, found)
        if stored is not None and stored.order == record.order:
            return f"`openledger datanet withdraw {found} --reason damaged`"
    return (
        f"row {record.order} of the table records, which no name finds any more: REINDEX the database first"
    )
