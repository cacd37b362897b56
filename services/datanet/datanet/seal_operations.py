"""Operations that seal: requested, read, cancelled. `datanet.seal_runner` runs them."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import store
from datanet.access import check_curator, check_reader
from datanet.registry import find_datanet
from datanet.seal_operation import MAX_WAITING, OperationState, Position, SealOperation
from datanet.sealing import without_records
from datanet.snapshot import SplitRule
from identity.names import DatanetName, SealOperationName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, ulid, utc_now
from servicekit.database.request_ids import RequestId
from servicekit.database.watches import Changes
from servicekit.errors import NotFound, ResourceExhausted
from servicekit.lists import Page, Query


class SealOperations:
    """The operations of one database.

    `wake` is called when there may be something to run or to stop; it returns at once.
    """

    def __init__(self, engine: Engine, changes: Changes, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._changes = changes
        self._wake = wake

    def start(
        self, principal: Principal, name: DatanetName, rule: SplitRule, request: RequestId
    ) -> SealOperation:
        """Returns the operation that seals the next snapshot. Repeating the request returns the same one.

        Raises NotFound, PermissionDenied, InvalidArgument for a split without training records, FailedPrecondition for a
        Datanet without accepted records, ResourceExhausted if too many of its operations wait.
        """
        rule.validate()

        def start(session: Session) -> SealOperation:
            check_curator(principal, find_datanet(session, name), "datanet.snapshots.seal")
            known = request.made(session)
            if known is not None:
                return _find(session, SealOperationName.parse(known))
            if not store.records.has_accepted(session, name):
                raise without_records(name)
            if len(store.operations.waiting(session, name)) >= MAX_WAITING:
                message = f"{MAX_WAITING} operations of {name} wait; wait for one, or cancel some"
                raise ResourceExhausted(
                    "SEAL_OPERATIONS_WAIT", message, metadata={"name": str(name), "limit": str(MAX_WAITING)}
                )
            made = SealOperation(
                name=SealOperationName(name.datanet, ulid()),
                principal=principal.name,
                rule=rule,
                state=OperationState.PENDING,
                position=Position(),
                queue_position=0,
                snapshot=0,
                error=b"",
                attempts=0,
                worker="",
                version=0,
                create_time=utc_now(),
                start_time=None,
                end_time=None,
            )
            store.operations.add(session, made)
            request.remember(session, str(made.name))
            return _find(session, made.name)

        found = run_in_transaction(self._engine, start)
        self._wake()
        return found

    def get(self, principal: Principal, name: SealOperationName) -> SealOperation:
        """Raises NotFound, PermissionDenied."""
        with reading(self._engine) as session:
            datanet = find_datanet(session, DatanetName(name.datanet))
            check_reader(principal, datanet, "datanet.operations.read")
            return _find(session, name)

    def list(self, principal: Principal, name: DatanetName, query: Query) -> Page[SealOperation]:
        """Returns a page, newest first. Raises NotFound, PermissionDenied, InvalidArgument for a wrong query."""
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, name), "datanet.operations.read")
            return store.operations.page(session, name, query)

    def cancel(self, principal: Principal, name: SealOperationName) -> SealOperation:
        """Cancels an operation; one that has ended stays as it is. Its thread ends within seconds, and its files with it.

        Raises NotFound, PermissionDenied.
        """

        def cancel(session: Session) -> SealOperation:
            datanet = find_datanet(session, DatanetName(name.datanet))
            check_curator(principal, datanet, "datanet.operations.cancel")
            found = _find(session, name)
            if found.state.final:
                return found
            store.operations.cancel(session, name)
            waiting = store.operations.waiting(session)
            self._changes.notify(session, str(name), *map(str, waiting))
            session.expire_all()
            return _find(session, name)

        cancelled = run_in_transaction(self._engine, cancel)
        self._wake()
        return cancelled


def _find(session: Session, name: SealOperationName) -> SealOperation:
    found = store.operations.get(session, name)
    if found is None:
        raise NotFound("seal operation", str(name))
    return found
