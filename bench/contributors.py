"""A Datanet of 100,000 contributors: the figures of docs/data.md.

    python bench/contributors.py [--contributors 100000]

Writes contributors and one record of each into a new database, seals them, and prints time and memory of the seal, and the
size of the event, of the snapshot in a response and of a page of contributors. Exits with 1 if one of them does not fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from datanet import convert, store
from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema
from datanet.entities import RecordState
from datanet.seal_operations import SealOperations
from datanet.sealing import Sealing
from datanet.snapshot import SplitRule
from datanet.store.tables import ContributorRow, RecordRow
from datanet.work_folders import WorkFolders
from identity.digest import canonical_json, sha256_bytes
from identity.names import DatanetName
from servicekit.auth import Principal
from servicekit.database import engine, migrate, run_in_transaction, utc_now
from servicekit.database.request_ids import UNNAMED
from servicekit.database.watches import Changes
from servicekit.eventlog.base import MAX_RECORD_BYTES
from servicekit.lists import Query
from servicekit.lists.listing import MAX_PAGE_BYTES
from servicekit.objects import ObjectStore

NAME = DatanetName("many")
SCHEMA = RecordSchema((Field(name="text", required=True),), "{text}", " {text}")
MADE = Datanet(
    name=str(NAME),
    owner="owner",
    licence="CC0-1.0",
    schema=SCHEMA,
    policy=QualityPolicy(contamination_check=False),
    create_time=utc_now(),
)
CHUNK = 10_000


def fill(session: Session, numbers: range) -> None:
    """Inserts contributors with one record each."""
    contributors = [
        {
            "datanet": NAME.datanet,
            "id": f"contributor-{number}",
            "principal": f"principal-{number}@issuer",
            "principal_folded": store.contributors.folded(f"principal-{number}@issuer"),
            "display_name": f"Contributor {number}",
            "display_name_folded": store.contributors.folded(f"Contributor {number}"),
            "payout_address": "",
            "consent_licence": "CC0-1.0",
            "consent_time": utc_now(),
            "accepted_count": 1,
            "pending_count": 0,
            "rejected_count": 0,
        }
        for number in numbers
    ]
    session.execute(insert(ContributorRow), contributors)
    records = []
    for number in numbers:
        words = " ".join(f"w{number * step % 999_983}" for step in (3, 5, 7, 11, 13, 17))
        content = canonical_json({"text": f"{words} of contributor {number}"})
        records.append(
            {
                "datanet": NAME.datanet,
                "contributor": f"contributor-{number}",
                "digest": sha256_bytes(content),
                "state": int(RecordState.ACCEPTED),
                "rule": "",
                "field": "",
                "reason": "",
                "content": content,
                "create_time": utc_now(),
            }
        )
    session.execute(insert(RecordRow), records)


def main() -> int:
    """Prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contributors", type=int, default=100_000)
    total = parser.parse_args().contributors
    with tempfile.TemporaryDirectory() as folder:
        database = engine(f"sqlite:///{folder}/datanet.db")
        migrate(database, "datanet")
        run_in_transaction(database, lambda session: store.datanets.add(session, MADE))
        for start in range(0, total, CHUNK):
            numbers = range(start, min(total, start + CHUNK))
            run_in_transaction(database, lambda session, numbers=numbers: fill(session, numbers))
        changes = Changes(database, store.operations.versions)
        sealing = Sealing(database, ObjectStore(Path(folder) / "objects"), changes)
        operations = SealOperations(database, changes, lambda: None)
        operations.start(Principal("owner"), NAME, SplitRule(str(NAME)), UNNAMED)
        operation = run_in_transaction(
            database, lambda session: store.operations.claim_next(session, "bench")
        )
        assert operation is not None
        begun = time.monotonic()
        with WorkFolders(Path(folder) / "work").folder(operation.name) as work:
            snapshot = sealing.seal(operation, work, lambda *_: None)
        seal_s = time.monotonic() - begun
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with Session(database) as session:
            event_bytes = max(session.scalars(text("SELECT length(value) FROM outbox")))
            page = store.contributors.page(session, NAME, Query(page_size=1000))
        response_bytes = convert.snapshot(snapshot).ByteSize()
        page_bytes = sum(convert.contributor(each).ByteSize() for each in page.items)
        database.dispose()
    figures = {
        "contributors": snapshot.contributor_count,
        "seal_s": round(seal_s, 1),
        "memory_mb": round(memory_mb),
        "event_bytes": event_bytes,
        "snapshot_bytes": response_bytes,
        "page_bytes": page_bytes,
        "page_total": page.total_size,
    }
    print(json.dumps(figures))
    fits = event_bytes < MAX_RECORD_BYTES and max(response_bytes, page_bytes) < MAX_PAGE_BYTES
    return 0 if fits and snapshot.contributor_count == total else 1


if __name__ == "__main__":
    raise SystemExit(main())
