"""Sealing a Datanet's accepted records into its next snapshot, once a request.

Read, compute, write the objects, then number and insert in one transaction with the event. A process that dies
before the last step leaves objects that no one names and no snapshot; the same request then seals anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import events, metrics, paging, store
from datanet import manifest as manifest_format
from datanet.access import check_curator, check_reader
from datanet.definition import Datanet
from datanet.entities import Contributor, Snapshot
from datanet.registry import find_datanet
from datanet.snapshot import AcceptedRecord, Sealed, SplitRule, seal
from identity.names import DatanetName, SnapshotName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.objects import ObjectStore
from servicekit.request_ids import RequestId


class Sealing:
    """Seals and finds snapshots."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects
        # Two seals of one Datanet at once would do the same work twice and could be numbered against their order.
        self._turns: dict[str, threading.Lock] = {}

    def seal(
        self,
        principal: Principal,
        name: DatanetName,
        rule: SplitRule,
        request: RequestId,
        check_cancelled: Callable[[], None],
    ) -> Snapshot:
        """The next snapshot; the same request again answers the same one.

        `check_cancelled` is called between the steps and raises when nobody waits any longer. Raises NotFound,
        PermissionDenied, InvalidArgument for a split that trains on nothing, FailedPrecondition without records.
        """
        rule.validate()
        with self._turns.setdefault(str(name), threading.Lock()), metrics.SEAL_SECONDS.time():
            with reading(self._engine) as session:
                datanet = find_datanet(session, name)
                check_curator(principal, datanet, "datanet.snapshots.seal")
                done = _sealed(session, request)
                if done is not None:
                    return done
                records = store.records.accepted(session, name)
                rejected = store.records.rejected_by_rule(session, name)
                contributors = store.contributors.page(session, name, "", None)
            self._check_records(name, records)
            sealed = seal(records, datanet, rule)
            check_cancelled()
            self._objects.put_bytes(sealed.data)
            check_cancelled()

            def insert(session: Session) -> Snapshot:
                done = _sealed(session, request)
                if done is not None:
                    return done
                number = store.snapshots.last_number(session, name) + 1
                made = self._name(datanet, number, sealed, rule, contributors, rejected)
                store.snapshots.add(session, made)
                request.remember(session, made.name)
                events.snapshot_sealed(session, made, datanet)
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

    def list(self, name: DatanetName, page_size: int, page_token: str) -> tuple[Sequence[Snapshot], str]:
        """A page newest first, and the next page's token. Raises NotFound, InvalidArgument for a bad token."""
        size, before = paging.size(page_size), paging.after_number(page_token)
        with reading(self._engine) as session:
            find_datanet(session, name)
            found = store.snapshots.page(session, name, before, size + 1)
        return paging.cut(found, size, lambda snapshot: snapshot.number)

    def open(self, principal: Principal, name: SnapshotName, manifest: bool) -> tuple[str, BinaryIO]:
        """The digest and the file of a snapshot's manifest or records object, verified.

        Raises NotFound, PermissionDenied, CorruptObject.
        """
        snapshot = self.get(name)
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, DatanetName(name.datanet)), "datanet.records.read")
        digest = snapshot.manifest_digest if manifest else snapshot.records_digest
        return digest, self._objects.open(digest)

    def _check_records(self, name: DatanetName, records: Sequence[AcceptedRecord]) -> None:
        if not records:
            message = f"{name} has no accepted records: contribute some, or accept those that wait for review"
            raise FailedPrecondition("DATANET_EMPTY", message, subject=str(name))

    def _name(
        self,
        datanet: Datanet,
        number: int,
        sealed: Sealed,
        rule: SplitRule,
        contributors: Sequence[Contributor],
        rejected: dict[str, int],
    ) -> Snapshot:
        """Writes the manifest under a number. Writing it again, or under a number that is not used, harms no one."""
        manifest_bytes = manifest_format.manifest(sealed, datanet, number, rule, contributors, rejected)
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
            contributors=sealed.contributors,
            rejected=tuple(sorted(rejected.items())),
            seal_time=utc_now(),
        )


def _sealed(session: Session, request: RequestId) -> Snapshot | None:
    """The snapshot that a request made before."""
    done = request.made(session)
    return None if done is None else store.snapshots.get(session, SnapshotName.parse(done))
