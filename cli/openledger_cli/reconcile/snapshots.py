"""Snapshots and model versions: their objects, and everyone who must have heard of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1 import trainer_pb2

from identity.snapshot import CorruptSnapshot, line_bytes
from identity.snapshot import root as snapshot_root
from openledger_cli.reconcile.book import Book
from openledger_cli.reconcile.deliveries import Deliveries
from openledger_cli.reconcile.events import Telling, Told
from servicekit.errors import DomainError
from servicekit.objects import ObjectStore
from servicekit.topics import DATANET_SNAPSHOT_V1, MODEL_VERSION_V1

SEALED, SNAPSHOT_TOLD, SNAPSHOT_KNOWN = "snapshot's objects", "snapshot told", "snapshot known"
VERSION_TOLD, VERSION_KNOWN, RUN = "model version told", "model version known", "training run's version"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an event says of a snapshot."""

    name: str
    root: str


@dataclass(frozen=True, slots=True)
class Version:
    """What an event says of a model version."""

    name: str
    digest: str
    state: str


def check(book: Book, telling: Telling, deliveries: Deliveries, objects: ObjectStore) -> None:
    """Judges every snapshot and every model version."""
    sealed = telling.told(
        DATANET_SNAPSHOT_V1,
        "datanet",
        datanet_events.SnapshotSealed,
        lambda message: Sealed(message.snapshot.name, message.snapshot.root),
    )
    _check_snapshots(book, telling, objects, sealed)
    deliveries.check(book, DATANET_SNAPSHOT_V1, sealed, ["trainer", "attribution", "chain_relay"])
    _check_known_snapshots(book, telling, deliveries, sealed)
    told = telling.told(MODEL_VERSION_V1, "trainer", trainer_events.ModelVersionChanged, _version)
    _check_versions(book, telling, told)
    deliveries.check(book, MODEL_VERSION_V1, told, ["inference", "attribution", "chain_relay"])
    _check_known_versions(book, telling, deliveries, told)


def _version(message: trainer_events.ModelVersionChanged) -> Version:
    version = message.model_version
    state = trainer_pb2.ModelVersionState.Name(version.state).removeprefix("MODEL_VERSION_STATE_").lower()
    return Version(version.name, version.digest, state)


def _check_snapshots(
    book: Book, telling: Telling, objects: ObjectStore, told: Sequence[Told[Sealed]]
) -> None:
    rows = telling.rows["datanet"].all(
        "SELECT datanet, number, root, manifest_digest, records_digest, record_count FROM snapshots"
    )
    book.saw(SEALED, len(rows))
    book.saw(SNAPSHOT_TOLD, len(rows))
    events = Counter((each.kept.name, each.kept.root) for each in told)
    known: set[tuple[str, str]] = set()
    for row in rows:
        name = f"datanets/{row.datanet}/snapshots/{row.number}"
        known.add((name, row.root))
        book.same(SNAPSHOT_TOLD, name, events[name, row.root], 1, "events about it")
        try:
            objects.get_bytes(row.manifest_digest)
            records = objects.get_bytes(row.records_digest)
            if snapshot_root(records) != row.root:
                book.lost(SEALED, name, f"its records have another root than {row.root}")
            book.same(SEALED, name, len(line_bytes(records)), row.record_count, "records")
        except (DomainError, CorruptSnapshot) as error:
            book.lost(SEALED, name, str(error))
    for name, root in events.keys() - known:
        book.lost(
            SNAPSHOT_TOLD, name, f"an event tells of it with root {root}, the database has no such snapshot"
        )


def _check_known_snapshots(
    book: Book, telling: Telling, deliveries: Deliveries, told: Sequence[Told[Sealed]]
) -> None:
    """Whoever handled the event has what it says."""
    roots = {
        "trainer": {
            row.name: row.root for row in telling.rows["trainer"].all("SELECT name, root FROM snapshots")
        },
        "chain_relay": {
            row.name: row.root
            for row in telling.rows["chain_relay"].all("SELECT name, root FROM registered_dataset")
        },
    }
    treasuries = telling.rows["attribution"].all("SELECT datanet, snapshot FROM treasuries")
    newest = {row.datanet: row.snapshot for row in treasuries}
    book.saw(SNAPSHOT_KNOWN, len(told))
    for each in told:
        for service, known in roots.items():
            if deliveries.effective(service, each) and known.get(each.kept.name) != each.kept.root:
                book.lost(
                    SNAPSHOT_KNOWN, f"{each.kept.name} at {service}", f"root is {known.get(each.kept.name)}"
                )
        datanet, _, number = each.kept.name.rpartition("/snapshots/")
        if deliveries.effective("attribution", each) and newest.get(datanet, 0) < int(number):
            book.lost(
                SNAPSHOT_KNOWN, f"{each.kept.name} at attribution", f"newest is {newest.get(datanet, 0)}"
            )


def _check_versions(book: Book, telling: Telling, told: Sequence[Told[Version]]) -> None:
    """The last event about a version says what the database says; every successful run made one version."""
    last = {each.kept.name: each.kept for each in told}
    versions = telling.rows["trainer"].all("SELECT model, number, digest, run, state FROM model_versions")
    book.saw(VERSION_TOLD, len(versions))
    names: set[str] = set()
    for row in versions:
        name = f"models/{row.model}/versions/{row.number}"
        names.add(name)
        if last.get(name) != Version(name, row.digest, row.state):
            book.lost(VERSION_TOLD, name, f"it is {row.state}, the last event says {last.get(name)}")
    for name in last.keys() - names:
        book.lost(VERSION_TOLD, name, "an event tells of it, the database has no such version")
    made = Counter(row.run for row in versions)
    runs = telling.rows["trainer"].all("SELECT id FROM training_runs WHERE version > 0")
    book.saw(RUN, len(runs))
    for run in runs:
        book.same(RUN, f"trainingRuns/{run.id}", made[run.id], 1, "versions")


def _check_known_versions(
    book: Book, telling: Telling, deliveries: Deliveries, told: Sequence[Told[Version]]
) -> None:
    """Whoever handled all events about a version has the state of the last."""
    inference = telling.rows["inference"].all("SELECT name, state FROM model_versions")
    served = {row.name: row.state for row in inference}
    known = {row.name for row in telling.rows["attribution"].all("SELECT name FROM model_versions")}
    registered = {
        row.version_digest
        for row in telling.rows["chain_relay"].all("SELECT version_digest FROM registered_model")
    }
    by_name: dict[str, list[Told[Version]]] = defaultdict(list)
    for each in told:
        by_name[each.kept.name].append(each)
    book.saw(VERSION_KNOWN, len(by_name))
    for name, events in by_name.items():

        def all_heard(service: str, events: Sequence[Told[Any]] = events) -> bool:
            return all(deliveries.effective(service, event) for event in events)

        last = events[-1].kept
        if all_heard("inference") and served.get(name) != last.state:
            book.lost(VERSION_KNOWN, f"{name} at inference", f"is {served.get(name)}, should be {last.state}")
        if all_heard("attribution") and name not in known:
            book.lost(VERSION_KNOWN, f"{name} at attribution", "is not there")
        if all_heard("chain_relay") and last.digest not in registered:
            book.lost(VERSION_KNOWN, f"{name} at chain_relay", "is not there")
