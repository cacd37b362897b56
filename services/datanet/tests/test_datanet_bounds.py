"""What one contributor can make a service store, hold in memory and compute."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from datanet import convert, events, store
from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema
from datanet.entities import MAX_SHOWN_CONTRIBUTORS, Contributor, RecordState, Snapshot, Submission
from datanet.evaluation_items import EvaluationItemsCache
from datanet.intake import ContributionWriter, Intake
from datanet.registry import Registry
from datanet.sealing import shown
from datanet.snapshot import Count
from datanet.store.tables import SnapshotRow
from datanet.stream import Submissions
from identity.names import ContributorName, DatanetName, SnapshotName
from servicekit.auth import Principal
from servicekit.database import engine, migrate, run_in_transaction, utc_now
from servicekit.database.request_ids import UNNAMED
from servicekit.errors import Cancelled, ResourceExhausted
from servicekit.eventlog.base import MAX_RECORD_BYTES
from servicekit.lists import Query
from servicekit.lists.listing import MAX_PAGE_BYTES
from servicekit.objects import ObjectStore

MAX_BYTES_A_REFUSAL = 1000


def writer(folder: Path, max_rejected: int) -> ContributionWriter:
    """A writer of a Datanet whose label has a thousand allowed values of 900 characters."""
    database = engine(f"sqlite:///{folder}/datanet.db")
    migrate(database, "datanet")
    items = EvaluationItemsCache(ObjectStore(folder / "objects"))
    labels = tuple(f"{number:03d}" + "x" * 900 for number in range(1000))
    schema = RecordSchema((Field(name="label", required=True, allowed_values=labels),), "{label}", " {label}")
    policy = QualityPolicy(contamination_check=False)
    made = Datanet(name="datanets/labels", owner="owner", licence="CC0-1.0", schema=schema, policy=policy)
    registry = Registry(database, items)
    registry.create(Principal("owner"), made, UNNAMED)
    name = ContributorName("labels", "alice")
    alice = Contributor(
        name=str(name),
        principal="alice",
        display_name="",
        payout_address="",
        consent_licence="CC0-1.0",
        consent_time=utc_now(),
    )
    registry.register(Principal("owner"), alice, UNNAMED)
    return Intake(database, items, max_rejected).open(Principal("alice"), name)


def stored_bytes(folder: Path) -> int:
    """Size of the database without events that wait to be published."""
    with closing(sqlite3.connect(folder / "datanet.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM outbox")
        connection.execute("VACUUM")
        (pages,), (size,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
        )
    return int(pages) * int(size)


def test_a_refusal_stores_at_most_1_kb(tmp_path: Path) -> None:
    """It stored 19 kB of allowed values, and up to 190 kB with longer ones."""
    made = writer(tmp_path, max_rejected=10_000)
    before = stored_bytes(tmp_path)
    results = made.write([b'{"label": "%d"}' % number for number in range(2000)])
    assert {result.rule for result in results} == {"label_not_allowed"}
    assert (stored_bytes(tmp_path) - before) / 2000 <= MAX_BYTES_A_REFUSAL


def test_rejected_records_have_a_quota_too(tmp_path: Path) -> None:
    made = writer(tmp_path, max_rejected=10)
    for batch in range(2):
        results = made.write([b'{"label": "%d"}' % number for number in range(5 * batch, 5 * batch + 5)])
        assert {result.state for result in results} == {RecordState.REJECTED}
    with pytest.raises(ResourceExhausted) as refused:
        made.write([b'{"label": "more"}'])
    assert refused.value.reason == "REJECTED_RECORDS"


def test_judging_stops_at_the_next_record_when_its_caller_is_gone(tmp_path: Path) -> None:
    made = writer(tmp_path, max_rejected=10)
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Cancelled()

    with pytest.raises(Cancelled):
        made.judge([b"{}"] * 100, check)
    assert len(asked) == 3


def test_the_records_of_a_stream_that_wait_have_a_bound_in_bytes() -> None:
    async def run() -> None:
        queue = Submissions(records=200, max_bytes=1000)

        async def fill() -> None:
            for number in range(30):
                await queue.put(Submission("", number, bytes(300)))
            await queue.put(Submission("", 30, bytes(5000)))  # larger than the bound: alone
            await queue.put(None)

        filling = asyncio.create_task(fill())
        seen: list[int] = []
        ended = False
        while not ended:
            batch = await asyncio.wait_for(queue.get_batch(), 120)
            records = [item for item in batch if isinstance(item, Submission)]
            assert sum(len(item.content) for item in records) <= 500 or len(records) == 1
            seen += [item.sequence for item in records]
            ended = batch[-1] is None
        await filling
        assert seen == list(range(31))

    asyncio.run(run())


def test_an_event_and_a_snapshot_do_not_grow_with_contributors_or_allowed_values(tmp_path: Path) -> None:
    """20,001 contributors, or a schema of 1 MB, made an event that the log refuses. `bench/contributors.py` seals 100,000."""
    database = engine(f"sqlite:///{tmp_path}/datanet.db")
    migrate(database, "datanet")
    labels = tuple(f"{number:03d}" + "x" * 997 for number in range(1000))
    schema = RecordSchema((Field(name="label", required=True, allowed_values=labels),), "{label}", " {label}")
    made = Datanet(
        name="datanets/many", owner="owner", licence="CC0-1.0", schema=schema, create_time=utc_now()
    )
    counts = tuple(Count(f"datanets/many/contributors/c{n:05d}", 1 + n % 7, 1) for n in range(20_001))
    snapshot = Snapshot(
        datanet=made.name,
        number=1,
        root="sha256:" + "0" * 64,
        manifest_digest="sha256:" + "1" * 64,
        records_digest="sha256:" + "2" * 64,
        record_count=80_000,
        cluster_count=20_001,
        near_duplicate_cluster_count=0,
        splits=(),
        contributors=shown(counts),
        contributor_count=len(counts),
        rejected=(),
        seal_time=utc_now(),
        read_time=None,
    )

    def write(session: Session) -> None:
        store.datanets.add(session, made)
        store.snapshots.add(session, snapshot)
        events.snapshot_sealed(session, snapshot, made)

    run_in_transaction(database, write)
    with Session(database) as session:
        assert session.scalar(text("SELECT max(length(value)) FROM outbox")) < MAX_RECORD_BYTES / 100
        (read,) = store.snapshots.page(session, DatanetName("many"), Query()).items
    assert read == snapshot
    assert len(read.contributors) == MAX_SHOWN_CONTRIBUTORS
    assert min(count.records for count in read.contributors) == 7
    assert convert.snapshot(read).ByteSize() < MAX_PAGE_BYTES / 10


def test_a_snapshot_that_an_earlier_version_sealed_shows_1000_contributors_too(tmp_path: Path) -> None:
    database = engine(f"sqlite:///{tmp_path}/datanet.db")
    migrate(database, "datanet")
    counts = {"splits": [], "contributors": [[f"c{n}", 1, 1] for n in range(1201)], "rejected": []}
    values = {
        "datanet": "many", "number": 1, "root": "", "manifest_digest": "", "records_digest": "", "record_count": 1201,
        "cluster_count": 1, "near_duplicate_cluster_count": 0, "counts": counts, "seal_time": utc_now(),
    }  # fmt: skip
    made = Datanet(
        name="datanets/many",
        owner="owner",
        licence="CC0-1.0",
        schema=RecordSchema((), "", ""),
        create_time=utc_now(),
    )

    def write(session: Session) -> None:
        store.datanets.add(session, made)
        session.execute(insert(SnapshotRow), [values])

    run_in_transaction(database, write)
    with Session(database) as session:
        found = store.snapshots.get(session, SnapshotName("many", 1))
    assert found is not None
    assert (len(found.contributors), found.contributor_count) == (1000, 1201)
