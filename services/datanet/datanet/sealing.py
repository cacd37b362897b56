"""Seals a Datanet's accepted records into its next snapshot, once per operation.

Steps: those of `datanet.seal_steps`, then number and insert the snapshot in one transaction with the event and the operation's
success. A process that dies before the last step leaves unreferenced objects, files and no snapshot; the operation's next
attempt continues after the last complete step.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import damage, events, store
from datanet import manifest as manifest_format
from datanet.access import check_reader
from datanet.definition import Datanet
from datanet.entities import MAX_SHOWN_CONTRIBUTORS, Contributor, Snapshot
from datanet.registry import find_datanet
from datanet.seal_operation import SealOperation
from datanet.seal_steps import Progress, read_time, seal
from datanet.snapshot import AcceptedRecord, Count, Sealed, SplitRule
from identity.names import DatanetName, SnapshotName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.database.watches import Changes
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.lists import Page, Query
from servicekit.objects import ObjectStore


class LostClaim(Exception):
    """The operation was cancelled, or another process continues it: this attempt must change nothing."""


class Sealing:
    """Seals, finds and lists snapshots."""

    def __init__(self, engine: Engine, objects: ObjectStore, changes: Changes) -> None:
        self._engine = engine
        self._objects = objects
        self._changes = changes

    def seal(self, operation: SealOperation, folder: Path, progress: Progress) -> Snapshot:
        """Makes the snapshot of an operation that this process has claimed.

        `folder` keeps the files of complete steps. `progress` is called often, and raises to end the attempt. Raises
        FailedPrecondition for a Datanet without accepted records, or with damaged ones, and LostClaim.
        """
        name = DatanetName(operation.name.datanet)
        with reading(self._engine) as session:
            datanet = find_datanet(session, name)
            contributors = store.contributors.of_datanet(session, name)
        sealed = seal(
            lambda: self._accepted(name, {each.name for each in contributors}),
            datanet,
            operation.rule,
            folder=folder,
            objects=self._objects,
            progress=progress,
            expected=sum(each.accepted_count for each in contributors),
        )
        if sealed is None:
            raise without_records(name)
        read_at = read_time(folder)
        with reading(self._engine) as session:
            rejected = store.records.rejected_by_rule(session, name)
            contributors = store.contributors.of_datanet(session, name)

        def insert(session: Session) -> Snapshot:
            number = store.snapshots.last_number(session, name) + 1
            if not store.operations.succeed(session, operation.claim, number, sealed.record_count):
                raise LostClaim
            made = self._number(
                sealed,
                datanet=datanet,
                number=number,
                rule=operation.rule,
                contributors=contributors,
                rejected=rejected,
                read_at=read_at,
            )
            store.snapshots.add(session, made)
            events.snapshot_sealed(session, made, datanet)
            self._changes.notify(session, str(operation.name))
            return made

        return run_in_transaction(self._engine, insert)

    def get(self, name: SnapshotName) -> Snapshot:
        """Raises NotFound of the Datanet or the snapshot."""
        with reading(self._engine) as session:
            found = store.snapshots.get(session, name)
            if found is None:
                find_datanet(session, DatanetName(name.datanet))
                raise NotFound("snapshot", str(name))
            return found

    def list(self, name: DatanetName, query: Query) -> Page[Snapshot]:
        """Returns a page, newest first. Raises NotFound, InvalidArgument for a wrong query."""
        with reading(self._engine) as session:
            find_datanet(session, name)
            return store.snapshots.page(session, name, query)

    def open(self, principal: Principal, name: SnapshotName, manifest: bool) -> tuple[str, BinaryIO]:
        """Returns the digest and the verified file of a snapshot's manifest or records object.

        Raises NotFound, PermissionDenied, CorruptObject.
        """
        snapshot = self.get(name)
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, DatanetName(name.datanet)), "datanet.records.read")
        digest = snapshot.manifest_digest if manifest else snapshot.records_digest
        return digest, self._objects.open(digest)

    def _accepted(self, name: DatanetName, contributors: Collection[str]) -> Iterator[AcceptedRecord]:
        """Yields the accepted records of one consistent state. Raises FailedPrecondition for damaged ones."""
        with reading(_of_one_state(self._engine)) as session:
            yield from damage.intact(session, name, store.records.accepted(session, name), contributors)

    def _number(
        self,
        sealed: Sealed,
        *,
        datanet: Datanet,
        number: int,
        rule: SplitRule,
        contributors: Sequence[Contributor],
        rejected: Mapping[str, int],
        read_at: datetime,
    ) -> Snapshot:
        """Writes the manifest with a number. Writing it twice, or with a number that is then not used, has no effect."""
        manifest_bytes = manifest_format.manifest(
            sealed,
            datanet=datanet,
            number=number,
            rule=rule,
            contributors=contributors,
            rejected=rejected,
        )
        return Snapshot(
            datanet=datanet.name,
            number=number,
            root=sealed.root,
            manifest_digest=self._objects.put_bytes(manifest_bytes),
            records_digest=sealed.records_digest,
            record_count=sealed.record_count,
            cluster_count=sealed.cluster_count,
            near_duplicate_cluster_count=sealed.near_duplicate_cluster_count,
            splits=sealed.splits,
            contributors=shown(sealed.contributors),
            contributor_count=len(sealed.contributors),
            rejected=tuple(sorted(rejected.items())),
            seal_time=utc_now(),
            read_time=read_at,
        )


def shown(contributors: Sequence[Count]) -> tuple[Count, ...]:
    """Returns the contributors with the most records, by name."""
    most = heapq.nlargest(MAX_SHOWN_CONTRIBUTORS, contributors, key=lambda count: (count.records, count.name))
    return tuple(sorted(most, key=lambda count: count.name))


def without_records(name: DatanetName) -> FailedPrecondition:
    """Returns the error of a Datanet that has nothing to seal."""
    message = f"{name} has no accepted records: contribute some, or accept pending ones"
    return FailedPrecondition("DATANET_EMPTY", message, subject=str(name))


def _of_one_state(engine: Engine) -> Engine:
    """Returns the engine for a long read. A serialisable one in PostgreSQL would conflict with the writers that it sees none of,
    or be refused because of them; a read of one state needs no more than REPEATABLE READ."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ")
