"""Snapshots and model versions: their objects, and every service that must know them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from openledger.audit.v1.audit_pb2 import (
    FinishedRun,
    KnownModelVersion,
    KnownSnapshot,
    ModelVersion,
    RegisteredModelVersion,
    RegisteredSnapshot,
    SealedSnapshot,
)
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1.trainer_pb2 import ModelVersionState

from identity.snapshot import CorruptSnapshot, line_bytes
from identity.snapshot import root as snapshot_root
from openledger_client.errors import OpenLedgerError
from openledger_client.services import ATTRIBUTION, CHAIN_RELAY, DATANET, INFERENCE, TRAINER
from openledger_ops.reconcile.book import Book
from openledger_ops.reconcile.consumers import Consumers
from openledger_ops.reconcile.events import Events, Published
from openledger_ops.reconcile.facts import Facts, Objects
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1, MODEL_VERSION_V1

OBJECTS, SNAPSHOT_EVENT = "snapshot objects intact", "snapshot event published"
SNAPSHOT_KNOWN = "snapshot known to its consumers"
VERSION_EVENT, VERSION_KNOWN = "model version event published", "model version known to its consumers"
RUN = "training run has its version"


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
    state: int

    def __str__(self) -> str:
        return f"{self.digest}, {_state(self.state)}"


def check(book: Book, events: Events, consumers: Consumers, objects: Objects) -> None:
    """Checks every snapshot and every model version."""
    sealed = events.published(DATANET_SNAPSHOT_V1, DATANET, datanet_events.SnapshotSealed, _sealed)
    _check_snapshots(book, events.facts[DATANET].of(SealedSnapshot), objects, sealed)
    consumers.check(book, DATANET_SNAPSHOT_V1, datanet_events.SnapshotSealed, sealed)
    _check_known_snapshots(book, consumers, sealed)
    changed = events.published(MODEL_VERSION_V1, TRAINER, trainer_events.ModelVersionChanged, _version)
    _check_versions(book, events.facts[TRAINER], changed)
    consumers.check(book, MODEL_VERSION_V1, trainer_events.ModelVersionChanged, changed)
    _check_known_versions(book, consumers, changed)


def _sealed(message: datanet_events.SnapshotSealed) -> Sealed:
    name = message.snapshot.name
    if not name.rpartition("/snapshots/")[2].isdecimal():
        raise ValueError(f"{name!r} is not the name of a snapshot")
    return Sealed(name, message.snapshot.root)


def _version(message: trainer_events.ModelVersionChanged) -> Version:
    version = message.model_version
    return Version(version.name, version.digest, int(version.state))


def _state(number: int) -> str:
    if number not in ModelVersionState.values():
        return f"in state {number}, which this release does not know"
    name = ModelVersionState.Name(ModelVersionState.ValueType(number))
    return name.removeprefix("MODEL_VERSION_STATE_").lower()


def _check_snapshots(
    book: Book,
    snapshots: Sequence[SealedSnapshot],
    objects: Objects,
    published: Sequence[Published[Sealed]],
) -> None:
    book.saw(OBJECTS, len(snapshots))
    book.saw(SNAPSHOT_EVENT, len(snapshots))
    events = Counter((each.kept.name, each.kept.root) for each in published)
    known: set[tuple[str, str]] = set()
    for each in snapshots:
        known.add((each.name, each.root))
        book.same(SNAPSHOT_EVENT, each.name, events[each.name, each.root], 1, "events about it")
        try:
            objects.get(DATANET, each.manifest_digest)
            records = objects.get(DATANET, each.records_digest)
            if snapshot_root(records) != each.root:
                book.lost(OBJECTS, each.name, f"its records have another root than {each.root}")
            book.same(OBJECTS, each.name, len(line_bytes(records)), each.record_count, "records")
        except (OpenLedgerError, CorruptSnapshot) as error:
            book.lost(OBJECTS, each.name, str(error))
    for name, root in events.keys() - known:
        why = f"there is an event about it with root {root}, but no such snapshot in the database"
        book.lost(SNAPSHOT_EVENT, name, why)


def _check_known_snapshots(book: Book, consumers: Consumers, published: Sequence[Published[Sealed]]) -> None:
    """A service that handled the event has what it says."""
    roots = {
        TRAINER: {each.name: each.root for each in consumers.facts[TRAINER].of(KnownSnapshot)},
        CHAIN_RELAY: {each.name: each.root for each in consumers.facts[CHAIN_RELAY].of(RegisteredSnapshot)},
    }
    newest = {
        datanet: int(number)
        for each in consumers.facts[ATTRIBUTION].of(KnownSnapshot)
        for datanet, _, number in [each.name.rpartition("/snapshots/")]
    }
    book.saw(SNAPSHOT_KNOWN, len(published))
    for each in published:
        for service, known in roots.items():
            if consumers.handled(service, DATANET_SNAPSHOT_V1, each):
                found = known.get(each.kept.name)
                if found != each.kept.root:
                    why = f"its root there is {found}, the event says {each.kept.root}"
                    book.lost(SNAPSHOT_KNOWN, f"{each.kept.name} at {service}", why)
        datanet, _, number = each.kept.name.rpartition("/snapshots/")
        if consumers.handled(ATTRIBUTION, DATANET_SNAPSHOT_V1, each) and newest.get(datanet, 0) < int(number):
            why = f"the newest snapshot there is {newest.get(datanet, 0)}"
            book.lost(SNAPSHOT_KNOWN, f"{each.kept.name} at {ATTRIBUTION}", why)


def _check_versions(book: Book, trainer: Facts, published: Sequence[Published[Version]]) -> None:
    """The last event about a version says what the database says; every successful run made one version."""
    last = {each.kept.name: each.kept for each in published}
    versions = trainer.of(ModelVersion)
    book.saw(VERSION_EVENT, len(versions))
    for each in versions:
        if last.get(each.name) != Version(each.name, each.digest, int(each.state)):
            said = last.get(each.name, "nothing")
            book.lost(VERSION_EVENT, each.name, f"it is {_state(each.state)}, the last event says {said}")
    for name in last.keys() - {each.name for each in versions}:
        book.lost(VERSION_EVENT, name, "there is an event about it, but no such version in the database")
    made = Counter(each.training_run for each in versions)
    runs = trainer.of(FinishedRun)
    book.saw(RUN, len(runs))
    for run in runs:
        book.same(RUN, run.name, made[run.name], 1, "versions")


def _check_known_versions(book: Book, consumers: Consumers, published: Sequence[Published[Version]]) -> None:
    """A service that handled all events about a version has the state of the last."""
    served = {each.name: int(each.state) for each in consumers.facts[INFERENCE].of(KnownModelVersion)}
    known = {each.name for each in consumers.facts[ATTRIBUTION].of(KnownModelVersion)}
    registered = {each.version_digest for each in consumers.facts[CHAIN_RELAY].of(RegisteredModelVersion)}
    by_name: dict[str, list[Published[Version]]] = defaultdict(list)
    for each in published:
        by_name[each.kept.name].append(each)
    book.saw(VERSION_KNOWN, len(by_name))
    for name, events in by_name.items():
        last = events[-1].kept
        complete = {
            service
            for service in (INFERENCE, ATTRIBUTION, CHAIN_RELAY)
            if all(consumers.handled(service, MODEL_VERSION_V1, event) for event in events)
        }
        if INFERENCE in complete and served.get(name) != last.state:
            found = "missing" if name not in served else _state(served[name])
            why = f"is {found}, expected {_state(last.state)}"
            book.lost(VERSION_KNOWN, f"{name} at {INFERENCE}", why)
        if ATTRIBUTION in complete and name not in known:
            book.lost(VERSION_KNOWN, f"{name} at {ATTRIBUTION}", "is missing")
        if CHAIN_RELAY in complete and last.digest not in registered:
            book.lost(VERSION_KNOWN, f"{name} at {CHAIN_RELAY}", "is missing")
